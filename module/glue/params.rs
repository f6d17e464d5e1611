// SPDX-License-Identifier: GPL-2.0

//! The module's parameters, which are defined in `params.c`.

use kernel::ffi::c_uint;

extern "C" {
    static xt_traffic_proc_mode: c_uint;
    static xt_traffic_proc_uid: c_uint;
    static xt_traffic_proc_gid: c_uint;
}

/// Who may read a new file.
#[derive(Clone, Copy)]
pub(crate) struct Access {
    /// Permission bits for reading.
    pub(crate) mode: u16,
    /// The owner, as the user namespace knows him that the network namespace belongs to.
    pub(crate) uid: u32,
    /// The group, in the same way.
    pub(crate) gid: u32,
}

impl Access {
    /// What the administrator wants at the moment.
    pub(crate) fn current() -> Self {
        // SAFETY: The variables are always there. The administrator may change them at any time,
        // each as a whole.
        let [mode, uid, gid] = unsafe {
            [
                &raw const xt_traffic_proc_mode,
                &raw const xt_traffic_proc_uid,
                &raw const xt_traffic_proc_gid,
            ]
            .map(|parameter| parameter.read_volatile())
        };
        // The mode has no bits above these (see `set_mode`).
        Self {
            mode: (mode & 0o444) as u16,
            uid,
            gid,
        }
    }
}
