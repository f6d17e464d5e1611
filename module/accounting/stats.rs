// SPDX-License-Identifier: GPL-2.0

//! The text of the file `.stats`.
//!
//! Each line is `key value`. The first lines are sums over all tables of the network namespace.
//! The other lines are those of each table and file, whose name precedes the key. A table that
//! waits for its files has one line, and is in the sums.

use super::{key::Key, params::Name, recent_flows::RecentFlows, slots::Memory, table::Table};
use core::fmt::{self, Write};

/// The statistics of the rows of one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowStats {
    /// The rows of all CPUs. An address has a row on each CPU that has counted it.
    pub rows: u64,
    /// The bytes of memory that the rows and their indexes take.
    pub memory: usize,
    /// How often something was counted in the row `*`, because there was no room for another row.
    pub overflows: u64,
    /// How often a row was given to another key, and its counts to the row `*`.
    pub recycled: u64,
}

impl RowStats {
    /// Adds the rows of one CPU.
    pub fn add<K: Key, const PAIRS: usize, M: Memory>(&mut self, table: &Table<K, PAIRS, M>) {
        self.merge(Self {
            rows: table.rows().into(),
            memory: table.memory(),
            overflows: table.overflows(),
            recycled: table.recycled(),
        });
    }

    fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.memory += other.memory;
        self.overflows += other.overflows;
        self.recycled += other.recycled;
    }
}

/// The statistics of the recent flows of one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowStats {
    /// The bytes of memory that the flows take.
    pub memory: usize,
    /// How often a flow was forgotten before its lifetime ended.
    pub forgotten: u64,
    /// How often a flow was not stored for lack of memory.
    pub unremembered: u64,
}

impl FlowStats {
    /// Adds the flows of one CPU.
    pub fn add<M: Memory>(&mut self, recent: &RecentFlows<M>) {
        self.memory += recent.memory();
        self.forgotten += recent.forgotten();
        self.unremembered += recent.unremembered();
    }

    fn merge(&mut self, other: Self) {
        self.memory += other.memory;
        self.forgotten += other.forgotten;
        self.unremembered += other.unremembered;
    }
}

/// The memory of all tables of the initial network namespace, or of all others together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// The bytes that packets have made the module allocate.
    pub used: u64,
    /// The bound of `used`.
    pub bound: u64,
}

/// The suffixes of a table's files, in the order of [`TableStats::files`].
const FILES: [&str; 3] = ["", ".ipconn", ".portconn"];

/// The statistics of one table. Tables sort by name, and those of one name by generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableStats {
    /// The table's name.
    pub name: Name,
    /// The time when the table was made, in nanoseconds since boot.
    pub generation: u64,
    /// Whether an older table of the same name has the files.
    pub waiting: bool,
    /// The files: traffic, ipconn, portconn. `None` for a file that the table does not have.
    pub files: [Option<RowStats>; 3],
    /// The flows. `None` if the table does not count connections.
    pub flows: Option<FlowStats>,
}

/// Writes the text of `.stats` for `tables`, in their order.
///
/// # Errors
///
/// Returns the error of `out`.
pub fn write(out: &mut impl Write, memory: MemoryStats, tables: &[TableStats]) -> fmt::Result {
    write_sums(out, memory, tables)?;
    tables.iter().try_for_each(|table| write_table(out, table))
}

fn write_sums(out: &mut impl Write, memory: MemoryStats, tables: &[TableStats]) -> fmt::Result {
    let (mut rows, mut flows) = (RowStats::default(), FlowStats::default());
    for table in tables {
        table
            .files
            .iter()
            .flatten()
            .for_each(|file| rows.merge(*file));
        flows.merge(table.flows.unwrap_or_default());
    }
    writeln!(out, "tables {}", tables.len())?;
    writeln!(out, "rows {}", rows.rows)?;
    writeln!(out, "memory {}", rows.memory + flows.memory)?;
    writeln!(out, "memory_used {}", memory.used)?;
    writeln!(out, "memory_bound {}", memory.bound)?;
    writeln!(out, "overflows {}", rows.overflows)?;
    writeln!(out, "recycled {}", rows.recycled)?;
    writeln!(out, "forgotten_flows {}", flows.forgotten)?;
    writeln!(out, "unremembered {}", flows.unremembered)
}

fn write_table(out: &mut impl Write, table: &TableStats) -> fmt::Result {
    let TableStats {
        name, generation, ..
    } = table;
    if table.waiting {
        return writeln!(out, "{name}.waiting {generation}");
    }
    writeln!(out, "{name}.generation {generation}")?;
    for (file, stats) in FILES.iter().zip(&table.files) {
        if let Some(RowStats {
            rows,
            memory,
            overflows,
            recycled,
        }) = stats
        {
            writeln!(out, "{name}{file}.rows {rows}")?;
            writeln!(out, "{name}{file}.memory {memory}")?;
            writeln!(out, "{name}{file}.overflows {overflows}")?;
            writeln!(out, "{name}{file}.recycled {recycled}")?;
        }
    }
    if let Some(FlowStats {
        memory,
        forgotten,
        unremembered,
    }) = table.flows
    {
        writeln!(out, "{name}.flows.memory {memory}")?;
        writeln!(out, "{name}.flows.forgotten {forgotten}")?;
        writeln!(out, "{name}.flows.unremembered {unremembered}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::string::String;

    const MEMORY: MemoryStats = MemoryStats {
        used: 4096,
        bound: 8192,
    };

    fn name(text: &str) -> Name {
        let mut bytes = [0; crate::abi::NAME_SIZE];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Name::from_padded(bytes).unwrap()
    }

    #[test]
    fn without_tables_all_sums_are_zero() {
        let mut text = String::new();
        write(&mut text, MEMORY, &[]).unwrap();
        assert_eq!(
            text,
            "tables 0\nrows 0\nmemory 0\nmemory_used 4096\nmemory_bound 8192\noverflows 0\nrecycled 0\nforgotten_flows 0\n\
             unremembered 0\n"
        );
    }

    #[test]
    fn sums_come_before_the_statistics_of_each_file() {
        let rows = |rows| RowStats {
            rows,
            memory: 100 * rows as usize,
            overflows: 10 * rows,
            recycled: 1000 * rows,
        };
        let flows = FlowStats {
            memory: 7,
            forgotten: 3,
            unremembered: 5,
        };
        let tables = [
            TableStats {
                name: name("A"),
                generation: 8,
                waiting: false,
                files: [Some(rows(1)), None, None],
                flows: None,
            },
            TableStats {
                name: name("b"),
                generation: 9,
                waiting: false,
                files: [None, Some(rows(2)), Some(rows(4))],
                flows: Some(flows),
            },
        ];
        let mut text = String::new();
        write(&mut text, MEMORY, &tables).unwrap();
        assert_eq!(
            text,
            "tables 2\nrows 7\nmemory 707\nmemory_used 4096\nmemory_bound 8192\noverflows 70\nrecycled 7000\nforgotten_flows 3\n\
             unremembered 5\n\
             A.generation 8\nA.rows 1\nA.memory 100\nA.overflows 10\nA.recycled 1000\n\
             b.generation 9\nb.ipconn.rows 2\nb.ipconn.memory 200\nb.ipconn.overflows 20\n\
             b.ipconn.recycled 2000\n\
             b.portconn.rows 4\nb.portconn.memory 400\nb.portconn.overflows 40\n\
             b.portconn.recycled 4000\n\
             b.flows.memory 7\nb.flows.forgotten 3\nb.flows.unremembered 5\n"
        );
    }

    #[test]
    fn a_waiting_table_has_one_line_after_those_of_the_table_with_the_files() {
        let table = |generation, waiting| TableStats {
            name: name("A"),
            generation,
            waiting,
            files: [
                Some(RowStats {
                    rows: 1,
                    memory: 100,
                    overflows: 10,
                    recycled: 2,
                }),
                None,
                None,
            ],
            flows: None,
        };
        let mut tables = [table(30, true), table(20, true), table(10, false)];
        tables.sort();
        let mut text = String::new();
        write(&mut text, MEMORY, &tables).unwrap();
        assert_eq!(
            text,
            "tables 3\nrows 3\nmemory 300\nmemory_used 4096\nmemory_bound 8192\noverflows 30\nrecycled 6\nforgotten_flows 0\n\
             unremembered 0\n\
             A.generation 10\nA.rows 1\nA.memory 100\nA.overflows 10\nA.recycled 2\n\
             A.waiting 20\nA.waiting 30\n"
        );
    }
}
