// SPDX-License-Identifier: GPL-2.0

//! The file `.stats`.

use crate::{
    accounting::{
        delivery::{
            Line,
            Lines,
            NextLine,
            Reader,
            Step, //
        },
        sort::sort,
        stats::{
            self,
            MemoryStats, //
        },
    },
    glue::{
        budget::Budget,
        procfs::Content, //
    },
    platform::Kernel,
    table_lists::TableLists,
};
use core::fmt::{
    self,
    Write, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// The text of `.stats`: the sizes of all tables of a namespace.
pub(crate) struct Stats {
    pub(crate) lists: Arc<TableLists>,
    pub(crate) budget: &'static Budget,
}

impl Content for Stats {
    fn mutex(reader: Reader<Self>) -> impl PinInit<Mutex<Reader<Self>>> {
        new_mutex!(reader, "xt_traffic::stats_reader")
    }
}

/// The whole text is made when reading begins. A position is the offset of a line in bytes.
impl Lines for Stats {
    type Snapshot = Text;
    type Position = usize;
    type Claim = ();
    type Error = Error;

    fn snapshot(&self) -> Result<Text> {
        let mut tables = self.lists.stats()?;
        sort::<Kernel, _>(&mut tables)?;
        let mut text = Text(KVVec::new());
        let memory = MemoryStats {
            used: self.budget.used(),
            bound: self.budget.bound(),
        };
        stats::write(&mut text, memory, &tables).map_err(|_| ENOMEM)?;
        Ok(text)
    }

    fn line(&self, text: &Text, position: usize, out: &mut Line) -> Result<NextLine<Self>> {
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

/// A text that can grow.
pub(crate) struct Text(KVVec<u8>);

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0
            .extend_from_slice(text.as_bytes(), GFP_KERNEL_ACCOUNT)
            .map_err(|_| fmt::Error)
    }
}
