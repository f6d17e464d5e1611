// SPDX-License-Identifier: GPL-2.0

//! The module's parameters. `params.c` defines them.

use kernel::ffi::c_uint;

extern "C" {
    static xt_traffic_proc_mode: c_uint;
    static xt_traffic_proc_uid: c_uint;
    static xt_traffic_proc_gid: c_uint;
    static xt_traffic_flows: c_uint;
}

/// Returns the largest number of recent flows of each kind that a new table remembers on each CPU.
pub(crate) fn flow_limit() -> u32 {
    // SAFETY: `params.c` defines the variable, and initializes it. Sysfs changes it with a single
    // store, which a volatile load reads as a whole.
    unsafe { (&raw const xt_traffic_flows).read_volatile() }
}

/// Who may read a new file in `/proc/net`.
#[derive(Clone, Copy)]
pub(crate) struct Access {
    /// The permission bits: read bits only.
    pub(crate) mode: u16,
    /// The owner's uid in the user namespace that owns the network namespace.
    pub(crate) uid: u32,
    /// The group's gid in the same user namespace.
    pub(crate) gid: u32,
}

impl Access {
    /// Returns the present values of the parameters.
    pub(crate) fn current() -> Self {
        // SAFETY: `params.c` defines the variable, and initializes it. Sysfs changes it with a
        // single store, which a volatile load reads as a whole.
        let mode = unsafe { (&raw const xt_traffic_proc_mode).read_volatile() };
        // SAFETY: As above.
        let uid = unsafe { (&raw const xt_traffic_proc_uid).read_volatile() };
        // SAFETY: As above.
        let gid = unsafe { (&raw const xt_traffic_proc_gid).read_volatile() };
        Self {
            // `set_mode` in `params.c` refuses all other bits.
            mode: (mode & 0o444) as u16,
            uid,
            gid,
        }
    }
}
