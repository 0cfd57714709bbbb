//! Numbers in decimal digits, without the cost of formatting.

/// A number in decimal digits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digits {
    digits: [u8; 20],
    from: usize,
}

impl Digits {
    pub(crate) fn of(mut number: u64) -> Self {
        let mut digits = [0; 20];
        let mut from = digits.len();
        for (place, digit) in digits.iter_mut().enumerate().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
            from = place;
            if number == 0 {
                break;
            }
        }
        Self { digits, from }
    }
}

impl AsRef<[u8]> for Digits {
    fn as_ref(&self) -> &[u8] {
        self.digits.get(self.from..).unwrap_or_default()
    }
}
