//! Lists whose numbers move on, such as the latest twenty items, one more at each visit.

use std::collections::HashMap;

use super::memory::slots;

/// Fewest numbers of a list.
const FEW: usize = 4;

/// Most numbers that one step adds.
const MOST: u64 = 64;

/// The text before and after the last number of keys that differ only in that number.
type Family = (Box<[u8]>, Box<[u8]>);

/// The lists of one page.
#[derive(Clone, Debug, Default)]
pub(super) struct Series(HashMap<Family, Window>);

#[derive(Clone, Copy, Debug)]
struct Window {
    low: u64,
    high: u64,
    /// How far the last visit moved it, if there were two visits.
    step: Option<u64>,
}

impl Series {
    /// Notes the keys that a visit used and no template explains.
    pub(super) fn note<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>) {
        let mut families: HashMap<Family, Vec<u64>> = HashMap::new();
        for key in keys {
            if let Some((before, number, behind)) = split(key) {
                let family = (before.into(), behind.into());
                families.entry(family).or_default().push(number);
            }
        }
        self.0.retain(|family, _| families.contains_key(family));
        for (family, numbers) in families {
            match window(&numbers) {
                None => drop(self.0.remove(&family)),
                Some((low, high)) => {
                    let step = self
                        .0
                        .get(&family)
                        .and_then(|before| high.checked_sub(before.high))
                        .filter(|step| *step <= MOST);
                    self.0.insert(family, Window { low, high, step });
                }
            }
        }
    }

    /// Calls `each` with the keys that the next step of a list adds.
    pub(super) fn next(&self, mut each: impl FnMut(Vec<u8>)) {
        for ((before, behind), window) in &self.0 {
            for ahead in 1..=window.step.unwrap_or(0) {
                let Some(number) = window.high.checked_add(ahead) else {
                    return;
                };
                each([before, number.to_string().as_bytes(), behind].concat());
            }
        }
    }

    /// Returns whether the next step of a list drops this key.
    pub(super) fn leaves(&self, key: &[u8]) -> bool {
        let Some((before, number, behind)) = split(key) else {
            return false;
        };
        // A lookup of a family that is no list costs two copies, of its parts.
        self.0
            .get(&(before.into(), behind.into()))
            .is_some_and(|window| number < window.low.saturating_add(window.step.unwrap_or(0)))
    }

    /// Returns the bytes it allocated.
    pub(super) fn memory(&self) -> usize {
        let families = self
            .0
            .keys()
            .map(|(before, behind)| before.len() + behind.len() + 32);
        slots::<Family, Window>(self.0.capacity()) + families.sum::<usize>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Splits a key around its last whole number.
fn split(key: &[u8]) -> Option<(&[u8], u64, &[u8])> {
    let end = key.iter().rposition(u8::is_ascii_digit)? + 1;
    let (head, behind) = key.split_at(end);
    let start = head
        .iter()
        .rposition(|byte| !byte.is_ascii_digit())
        .map_or(0, |at| at + 1);
    let (before, digits) = head.split_at(start);
    if before.last().is_some_and(u8::is_ascii_alphabetic)
        || (digits.len() > 1 && digits.first() == Some(&b'0'))
    {
        return None;
    }
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((before, number, behind))
}

/// Returns the lowest and highest of `numbers` if they form a list with few gaps.
fn window(numbers: &[u64]) -> Option<(u64, u64)> {
    let (low, high) = (*numbers.iter().min()?, *numbers.iter().max()?);
    let room = usize::try_from(high - low).ok()?.checked_add(1)?;
    (numbers.len() >= FEW && numbers.len().saturating_mul(5) >= room.saturating_mul(4))
        .then_some((low, high))
}
