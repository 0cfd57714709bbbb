//! No TLS: a URL that asks for it is refused, so nothing below ever runs.

use std::io;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::url::StoreUrl;

pub(in crate::store::redis) const OPTIONS: &[&str] = &[];

#[derive(Debug)]
pub(in crate::store::redis) enum Certificates {}

#[derive(Debug)]
pub(in crate::store::redis) enum Session {}

pub(in crate::store::redis) fn certificates(url: &mut StoreUrl) -> Result<Arc<Certificates>> {
    let what = format!("{} asks for TLS, which", url.label());
    Err(Error::feature_missing(&what, "tls"))
}

impl Certificates {
    pub(in crate::store::redis) fn session(&self, _host: &str) -> io::Result<Session> {
        match *self {}
    }
}

impl Session {
    pub(in crate::store::redis) fn is_shaking_hands(&self) -> bool {
        match *self {}
    }

    pub(in crate::store::redis) fn seal(&mut self, _plain: &[u8]) -> io::Result<()> {
        match *self {}
    }

    pub(in crate::store::redis) fn drain(&mut self, _out: &mut Vec<u8>) -> io::Result<()> {
        match *self {}
    }

    pub(in crate::store::redis) fn received(&mut self) -> &mut Vec<u8> {
        match *self {}
    }

    pub(in crate::store::redis) fn open(&mut self, _plain: &mut Vec<u8>) -> io::Result<()> {
        match *self {}
    }
}
