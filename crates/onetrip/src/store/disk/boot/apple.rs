//! macOS draws a name for each boot.

pub(super) fn id() -> Option<String> {
    // A UUID, and the nought that ends it.
    let mut id = [0_u8; 37];
    let mut length = id.len();
    if !read(&mut id, &mut length) {
        return None;
    }
    let id = id.split(|byte| *byte == 0).next()?;
    String::from_utf8(id.to_vec())
        .ok()
        .filter(|id| !id.is_empty())
}

#[expect(
    unsafe_code,
    reason = "the name of a boot is asked of the system by pointers; those given here are valid and as long as they say"
)]
fn read(id: &mut [u8; 37], length: &mut usize) -> bool {
    let name = c"kern.bootsessionuuid".as_ptr();
    // SAFETY: `name` ends with a nought, `id` has room for `length` bytes, and nothing is set.
    unsafe {
        libc::sysctlbyname(
            name,
            id.as_mut_ptr().cast(),
            length,
            std::ptr::null_mut(),
            0,
        ) == 0
    }
}
