//! What vouches that an entry is whole, and of its name.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use twox_hash::XxHash3_64;

use super::{Name, PREAMBLE};

/// Bytes of a checksum.
pub(super) const CHECKSUM: usize = 8;
/// Bytes of a signature.
pub(super) const SIGNATURE: usize = 32;

/// Names that are longer are put together on the heap.
const MOST: usize = 128;

/// Returns the seal of an entry that is not signed: XXH3 of its `body`, which is all behind the
/// seal. The seed is the XXH3 of its name, whose seed in turn is the preamble.
///
/// One hash over contiguous bytes takes fewer instructions than feeding them in parts.
pub(super) fn checksum(name: Name<'_>, preamble: [u8; PREAMBLE], body: &[u8]) -> [u8; CHECKSUM] {
    let seed = hash_of_name(name, u32::from_le_bytes(preamble).into());
    XxHash3_64::oneshot_with_seed(seed, body).to_le_bytes()
}

fn hash_of_name(name: Name<'_>, seed: u64) -> u64 {
    let hash = |name: &[u8]| XxHash3_64::oneshot_with_seed(seed, name);
    if name.prefix.is_empty() {
        return hash(name.key);
    }
    let mut whole = [0; MOST];
    match whole.get_mut(..name.prefix.len() + name.key.len()) {
        Some(whole) => {
            let (prefix, key) = whole.split_at_mut(name.prefix.len());
            prefix.copy_from_slice(name.prefix);
            key.copy_from_slice(name.key);
            hash(whole)
        }
        None => hash(&[name.prefix, name.key].concat()),
    }
}

/// Secrets that sign entries: the first signs, any of them vouches for what it once signed.
#[derive(Clone)]
pub(super) struct Signer(Vec<Hmac<Sha256>>);

impl Signer {
    pub(super) fn new(secrets: &[Vec<u8>]) -> Option<Self> {
        let macs: Vec<_> = secrets
            .iter()
            // HMAC takes a key of any length, so none is refused.
            .filter_map(|secret| Hmac::<Sha256>::new_from_slice(secret).ok())
            .collect();
        (!macs.is_empty()).then_some(Self(macs))
    }

    fn feed(mac: &Hmac<Sha256>, name: Name<'_>, preamble: &[u8], body: &[u8]) -> Hmac<Sha256> {
        let mut mac = mac.clone();
        let length = (name.prefix.len() + name.key.len()) as u64;
        mac.update(&length.to_le_bytes());
        mac.update(name.prefix);
        mac.update(name.key);
        mac.update(preamble);
        mac.update(body);
        mac
    }

    pub(super) fn sign(
        &self,
        name: Name<'_>,
        preamble: &[u8],
        body: &[u8],
    ) -> Option<[u8; SIGNATURE]> {
        let mac = Self::feed(self.0.first()?, name, preamble, body);
        Some(mac.finalize().into_bytes().into())
    }

    pub(super) fn vouches(
        &self,
        name: Name<'_>,
        preamble: &[u8],
        body: &[u8],
        signature: &[u8],
    ) -> bool {
        self.0.iter().any(|mac| {
            Self::feed(mac, name, preamble, body)
                .verify_slice(signature)
                .is_ok()
        })
    }
}
