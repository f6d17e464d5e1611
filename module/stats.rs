// SPDX-License-Identifier: GPL-2.0

//! The file `.stats`.

use crate::{
    accounting::{
        delivery::{Line, Lines, Step},
        stats,
    },
    named::Tables,
    sort::sort,
};
use core::fmt::{self, Write};
use kernel::{alloc::KVVec, prelude::*, sync::Arc};

/// What the tables of a namespace say about themselves.
pub(crate) struct Stats(pub(crate) Arc<Tables>);

/// The whole text is made at the beginning; a position is that of a byte in it.
impl Lines for Stats {
    type Snapshot = Text;
    type Claim = ();
    type Error = Error;

    fn snapshot(&self) -> Result<Text> {
        let mut tables = self.0.stats()?;
        sort(&mut tables)?;
        let mut text = Text(KVVec::new());
        stats::write(&mut text, &tables).map_err(|_| ENOMEM)?;
        Ok(text)
    }

    fn line(&self, text: &Text, position: usize, out: &mut Line) -> Result<Option<Step<()>>> {
        let rest = text.0.get(position..).unwrap_or_default();
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let line = core::str::from_utf8(&rest[..=end]).map_err(|_| EINVAL)?;
        out.write_str(line)?;
        Ok(Some(Step {
            next: position + line.len(),
            claim: None,
        }))
    }

    fn give_back(&self, (): ()) {}
}

/// A text that grows.
pub(crate) struct Text(KVVec<u8>);

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0
            .extend_from_slice(text.as_bytes(), GFP_KERNEL_ACCOUNT)
            .map_err(|_| fmt::Error)
    }
}
