//! Shares the keys of dicts, which repeat in a list of records.

use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::text::text;

/// Number of keys remembered. A key replaces another one with the same hash.
const PLACES: usize = 64;

/// The keys of one value so far. Each becomes one Python string, which keeps its hash.
#[derive(Default)]
pub(crate) struct Names<'a, 'py> {
    dicts: usize,
    /// Empty until there is a second dict: the keys of one dict differ.
    places: Vec<Option<(&'a [u8], Bound<'py, PyString>)>>,
}

impl<'a, 'py> Names<'a, 'py> {
    /// Notes that another dict begins.
    pub(crate) fn enter_dict(&mut self) {
        self.dicts += 1;
        if self.dicts == 2 {
            self.places.resize(PLACES, None);
        }
    }

    /// Returns the string of these bytes. Raises UnicodeDecodeError if they are not UTF-8.
    pub(crate) fn get(
        &mut self,
        py: Python<'py>,
        name: &'a [u8],
    ) -> PyResult<Bound<'py, PyString>> {
        let Some(place) = self.places.get_mut(hash(name) % PLACES) else {
            return text(py, name);
        };
        if let Some((held, string)) = place
            && *held == name
        {
            return Ok(string.clone());
        }
        let string = text(py, name)?;
        *place = Some((name, string.clone()));
        Ok(string)
    }
}

/// FNV-1a, which is fast for short strings. Provoked collisions do no harm.
fn hash(name: &[u8]) -> usize {
    let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = name.iter().fold(0x811c_9dc5, mix);
    (hash ^ hash >> 16) as usize
}
