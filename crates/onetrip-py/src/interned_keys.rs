//! Keys of dicts, which in a list of records are the same ones again and again.

use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::text::text;

/// How many are remembered. A name takes the place of another one with the same hash.
const PLACES: usize = 64;

/// Strings that one value had for keys so far. One object for all is made once, and keeps its hash.
#[derive(Default)]
pub(crate) struct Names<'a, 'py> {
    dicts: usize,
    /// None of them until there is a second dict: the keys of one dict differ.
    places: Vec<Option<(&'a [u8], Bound<'py, PyString>)>>,
}

impl<'a, 'py> Names<'a, 'py> {
    /// To be told when another dict begins.
    pub(crate) fn enter_dict(&mut self) {
        self.dicts += 1;
        if self.dicts == 2 {
            self.places.resize(PLACES, None);
        }
    }

    /// The string of these bytes. Raises UnicodeDecodeError if they are not UTF-8.
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

/// FNV-1a, which is short for short strings. Who makes many collide gains nothing by it.
fn hash(name: &[u8]) -> usize {
    let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = name.iter().fold(0x811c_9dc5, mix);
    (hash ^ hash >> 16) as usize
}
