// SPDX-License-Identifier: GPL-2.0

//! What libxtables calls.
//!
//! iptables loads the library and runs its constructor, which registers the match. For each option
//! on the command line the guided option parser calls [`parse`], and at the end of the rule
//! [`final_check`]. [`print`] and [`save`] turn a rule into text again.

use crate::{
    abi::{self, RuleInfo, XtTrafficMtinfo},
    bindings as sys,
    options::Invalid,
};
use std::{
    cell::UnsafeCell,
    ffi::{CStr, CString, c_int, c_uint, c_void},
    ptr,
};

/// What `iptables -m traffic -h` prints.
const HELP: &str = "\
traffic match options:
    --traffic              Count bytes per address (TCP, UDP, OTHER)
    --net address/length   The network to account for, or
    --netbase address      its first address
    --netmask mask         and its mask
    --name name            Name of the table and of its file below
                           /proc/net/xt_traffic: 1 to 31 of A-Z a-z 0-9 _ -
[!] --nointernal           Leave out traffic inside the network;
                           with !, count only that
";

/// The numbers of the options, and their bits in `xflags`.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Id {
    Traffic,
    Net,
    Netbase,
    Netmask,
    Name,
    Nointernal,
}

impl Id {
    const fn bit(self) -> c_uint {
        1 << self as u32
    }
}

const NONE: sys::xt_option_type = sys::xt_option_type_XTTYPE_NONE;
const STRING: sys::xt_option_type = sys::xt_option_type_XTTYPE_STRING;

const fn option(name: &'static CStr, id: Id, kind: sys::xt_option_type) -> sys::xt_option_entry {
    sys::xt_option_entry {
        name: name.as_ptr(),
        type_: kind,
        id: id as c_uint,
        excl: 0,
        also: 0,
        flags: 0,
        ptroff: 0,
        size: 0,
        min: 0,
        max: 0,
        base: 0,
    }
}

const END: sys::xt_option_entry = sys::xt_option_entry { name: ptr::null(), ..option(c"", Id::Traffic, NONE) };

/// A static that is handed to C.
#[repr(transparent)]
struct Shared<T>(UnsafeCell<T>);

// SAFETY: iptables has one thread.
unsafe impl<T> Sync for Shared<T> {}

static OPTIONS: Shared<[sys::xt_option_entry; 7]> = Shared(UnsafeCell::new([
    option(c"traffic", Id::Traffic, NONE),
    sys::xt_option_entry { excl: Id::Netbase.bit() | Id::Netmask.bit(), ..option(c"net", Id::Net, STRING) },
    sys::xt_option_entry { also: Id::Netmask.bit(), ..option(c"netbase", Id::Netbase, STRING) },
    sys::xt_option_entry { also: Id::Netbase.bit(), ..option(c"netmask", Id::Netmask, STRING) },
    option(c"name", Id::Name, STRING),
    sys::xt_option_entry { flags: sys::xt_option_flags_XTOPT_INVERT, ..option(c"nointernal", Id::Nointernal, NONE) },
    END,
]));

static MATCH: Shared<sys::xtables_match> = Shared(UnsafeCell::new(sys::xtables_match {
    version: sys::XTABLES_VERSION.as_ptr().cast(),
    name: abi::MATCH_NAME.as_ptr(),
    revision: abi::REVISION,
    family: sys::NFPROTO_IPV4 as u16,
    size: size_of::<RuleInfo>(),
    userspacesize: size_of::<XtTrafficMtinfo>(),
    help: Some(help),
    print: Some(print),
    save: Some(save),
    x6_parse: Some(parse),
    x6_fcheck: Some(final_check),
    x6_options: OPTIONS.0.get().cast(),
    // SAFETY: What is left are integers, pointers and optional functions: zero is valid, and is
    // what libxtables expects for absent ones.
    ..unsafe { std::mem::zeroed() }
}));

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

extern "C" fn constructor() {
    // SAFETY: The match is static and registered once, when the library is loaded.
    unsafe { sys::xtables_register_match(MATCH.0.get()) };
}

unsafe extern "C" fn help() {
    output(HELP);
}

/// # Safety
///
/// libxtables passes a valid call, whose data are those of this match.
unsafe extern "C" fn parse(call: *mut sys::xt_option_call) {
    // SAFETY: As above. `xtables_option_parse` checks what the table of options says.
    let (id, info, inverted) = unsafe {
        sys::xtables_option_parse(call);
        let info = &mut (*(*call).data.cast::<RuleInfo>()).user;
        ((*(*call).entry).id, info, (*call).invert)
    };
    // SAFETY: As above; options of type string have an argument.
    let value = || unsafe { CStr::from_ptr((*call).arg) }.to_string_lossy();
    let check = |name: &str, result: Result<(), Invalid>| {
        if let Err(why) = result {
            let value = value();
            fail(&format!("bad value \"{value}\" for option \"--{name}\": {why}"));
        }
    };
    match id {
        id if id == Id::Traffic as c_uint => info.set_traffic(),
        id if id == Id::Net as c_uint => check("net", info.set_net(&value())),
        id if id == Id::Netbase as c_uint => check("netbase", info.set_netbase(&value())),
        id if id == Id::Netmask as c_uint => check("netmask", info.set_netmask(&value())),
        id if id == Id::Name as c_uint => check("name", info.set_name(&value())),
        _ => info.set_nointernal(inverted),
    }
}

/// # Safety
///
/// libxtables passes a valid call, whose data are those of this match.
unsafe extern "C" fn final_check(call: *mut sys::xt_fcheck_call) {
    // SAFETY: As above.
    let (flags, info) = unsafe { ((*call).xflags, &(*(*call).data.cast::<RuleInfo>()).user) };
    let given = |id: Id| flags & id.bit() != 0;
    // Not left to the option parser, whose message for a missing option takes two lines.
    if !given(Id::Name) {
        fail("option \"--name\" must be specified");
    }
    if !given(Id::Traffic) {
        fail("option \"--traffic\" must be specified: it says what to count");
    }
    if !given(Id::Net) && !given(Id::Netbase) && !given(Id::Netmask) {
        fail("option \"--net\", or \"--netbase\" and \"--netmask\", must be specified");
    }
    if given(Id::Netbase) && given(Id::Netmask) {
        if let Err(why) = info.check_base() {
            fail(&format!("bad value for option \"--netbase\" with this \"--netmask\": {why}"));
        }
    }
}

/// # Safety
///
/// libxtables passes a rule's match whose data are those of this match.
unsafe extern "C" fn print(_ip: *const c_void, rule: *const sys::xt_entry_match, _numeric: c_int) {
    // SAFETY: As above.
    let options = unsafe { options_of(rule) };
    output(&format!(" traffic{options}"));
}

/// # Safety
///
/// As for [`print`].
unsafe extern "C" fn save(_ip: *const c_void, rule: *const sys::xt_entry_match) {
    // SAFETY: As above.
    output(&unsafe { options_of(rule) });
}

/// # Safety
///
/// As for [`print`].
unsafe fn options_of(rule: *const sys::xt_entry_match) -> String {
    // SAFETY: As above. The data follow the header; they may be unaligned for our type where the rule
    // was read from nft.
    let info = unsafe { rule.add(1).cast::<XtTrafficMtinfo>().read_unaligned() };
    info.to_options()
}

/// Prints on the C library's standard output, which iptables uses, too.
fn output(text: &str) {
    if let Ok(text) = CString::new(text) {
        // SAFETY: Two valid strings, one for the other's only conversion.
        unsafe { sys::printf(c"%s".as_ptr(), text.as_ptr()) };
    }
}

/// Ends iptables with a message and exit status 2.
fn fail(message: &str) -> ! {
    let message = format!("{}: {message}", abi::MATCH_NAME.to_string_lossy());
    let message = CString::new(message).unwrap_or_default();
    // SAFETY: iptables sets `xt_params`, and `exit_err` in it, before it loads extensions. The
    // strings are valid; the function does not return.
    unsafe {
        match (*sys::xt_params).exit_err {
            Some(exit) => exit(sys::xtables_exittype_PARAMETER_PROBLEM, c"%s".as_ptr(), message.as_ptr()),
            None => std::process::exit(sys::xtables_exittype_PARAMETER_PROBLEM as i32),
        }
    }
}
