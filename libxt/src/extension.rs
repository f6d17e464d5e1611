// SPDX-License-Identifier: GPL-2.0-only

//! The functions that libxtables calls.
//!
//! iptables loads the library and runs its constructor, which registers the match. The option
//! parser of libxtables calls [`parse`] for each option on the command line, and [`final_check`] at
//! the end of the rule. [`print()`] and [`save`] print a rule.

use crate::{
    abi::{self, RuleInfo, XtTrafficMtinfo},
    address::Family,
    bindings as sys,
    catalogue::{Entry, HELP, OPTIONS},
    options::Given,
};
use std::{
    cell::UnsafeCell,
    ffi::{CStr, CString, c_int, c_void},
    ptr,
};

/// The end of the list of options.
const END: sys::xt_option_entry = sys::xt_option_entry {
    name: ptr::null(),
    type_: sys::xt_option_type_XTTYPE_NONE,
    id: 0,
    excl: 0,
    also: 0,
    flags: 0,
    ptroff: 0,
    size: 0,
    min: 0,
    max: 0,
    base: 0,
};

/// An option in the form of libxtables. Every argument is a string to libxtables; [`parse`] parses
/// it.
const fn entry(option: &Entry) -> sys::xt_option_entry {
    let kind = match option.has_argument {
        true => sys::xt_option_type_XTTYPE_STRING,
        false => sys::xt_option_type_XTTYPE_NONE,
    };
    let flags = if option.invert { sys::xt_option_flags_XTOPT_INVERT } else { 0 };
    sys::xt_option_entry { name: option.name.as_ptr(), type_: kind, id: option.id as u32, flags, ..END }
}

const fn entries() -> [sys::xt_option_entry; OPTIONS.len() + 1] {
    let mut entries = [END; OPTIONS.len() + 1];
    let mut n = 0;
    while n < OPTIONS.len() {
        entries[n] = entry(&OPTIONS[n]);
        n += 1;
    }
    entries
}

/// A static variable that is passed to C.
#[repr(transparent)]
struct Shared<T>(UnsafeCell<T>);

// SAFETY: iptables is single-threaded.
unsafe impl<T> Sync for Shared<T> {}

static ENTRIES: Shared<[sys::xt_option_entry; OPTIONS.len() + 1]> = Shared(UnsafeCell::new(entries()));

/// The match for one family and revision. libxtables does not pass the family and the revision to
/// the functions, so each family has its own functions, and so has each revision if it matters.
///
/// libxtables uses the newest revision that the module knows too. iptables-nft also prints rules of
/// older revisions with its functions.
const fn match_for<const IPV6: bool, const REVISION: u8>() -> sys::xtables_match {
    sys::xtables_match {
        version: sys::XTABLES_VERSION.as_ptr().cast(),
        name: abi::MATCH_NAME.as_ptr(),
        revision: REVISION,
        family: if IPV6 { sys::NFPROTO_IPV6 } else { sys::NFPROTO_IPV4 } as u16,
        size: size_of::<RuleInfo>(),
        userspacesize: size_of::<XtTrafficMtinfo>(),
        help: Some(help),
        print: Some(print::<IPV6>),
        save: Some(save::<IPV6>),
        x6_parse: Some(parse::<IPV6>),
        x6_fcheck: Some(final_check::<IPV6, REVISION>),
        x6_options: ENTRIES.0.get().cast(),
        // SAFETY: The remaining fields are integers, pointers and optional functions. Zero is valid
        // for all of them, and libxtables takes it as absent.
        ..unsafe { std::mem::zeroed() }
    }
}

const fn family(ipv6: bool) -> Family {
    if ipv6 { Family::Ipv6 } else { Family::Ipv4 }
}

const OLD: u8 = abi::REVISIONS[0];
const NEW: u8 = abi::REVISIONS[1];

static MATCHES: [Shared<sys::xtables_match>; 2 * abi::REVISIONS.len()] = [
    Shared(UnsafeCell::new(match_for::<false, OLD>())),
    Shared(UnsafeCell::new(match_for::<true, OLD>())),
    Shared(UnsafeCell::new(match_for::<false, NEW>())),
    Shared(UnsafeCell::new(match_for::<true, NEW>())),
];

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

extern "C" fn constructor() {
    for each in &MATCHES {
        // SAFETY: The match is static and is registered once, when the library is loaded.
        // libxtables ignores the matches of the other family.
        unsafe { sys::xtables_register_match(each.0.get()) };
    }
}

unsafe extern "C" fn help() {
    output(HELP);
}

/// # Safety
///
/// libxtables passes a valid call, whose data are those of this match.
unsafe extern "C" fn parse<const IPV6: bool>(call: *mut sys::xt_option_call) {
    // SAFETY: The caller passes a valid call. `xtables_option_parse` checks the properties in the
    // table of options.
    let (id, info, inverted) = unsafe {
        sys::xtables_option_parse(call);
        let info = &mut (*(*call).data.cast::<RuleInfo>()).user;
        ((*(*call).entry).id, info, (*call).invert)
    };
    let Some(option) = OPTIONS.get(id as usize) else { return };
    let value = match option.has_argument {
        // SAFETY: The caller passes a valid call, and options of type string have an argument.
        true => unsafe { CStr::from_ptr((*call).arg) }.to_string_lossy(),
        false => Default::default(),
    };
    if let Err(why) = info.set(family(IPV6), option.id, inverted, &value) {
        let name = option.name.to_string_lossy();
        // `{:?}` escapes newlines, so the message is always one line.
        fail(&format!("bad value {value:?} for option \"--{name}\": {why}"));
    }
}

/// # Safety
///
/// libxtables passes a valid call, whose data are those of this match.
unsafe extern "C" fn final_check<const IPV6: bool, const REVISION: u8>(call: *mut sys::xt_fcheck_call) {
    // SAFETY: The caller passes a valid call with the data of this match.
    let (flags, info) = unsafe { ((*call).xflags, &(*(*call).data.cast::<RuleInfo>()).user) };
    if let Err(why) = info.check(family(IPV6), Given(flags)).and_then(|()| info.check_revision(REVISION)) {
        fail(&why.to_string());
    }
}

/// # Safety
///
/// libxtables passes a rule's match whose data are those of this match.
unsafe extern "C" fn print<const IPV6: bool>(_ip: *const c_void, rule: *const sys::xt_entry_match, _numeric: c_int) {
    // SAFETY: The caller passes a match of this type.
    let info = unsafe { info_of(rule) };
    output(&format!(" traffic{}", info.to_options(family(IPV6))));
}

/// # Safety
///
/// As for [`print()`].
unsafe extern "C" fn save<const IPV6: bool>(_ip: *const c_void, rule: *const sys::xt_entry_match) {
    // SAFETY: The caller passes a match of this type.
    let info = unsafe { info_of(rule) };
    output(&info.to_options(family(IPV6)));
}

/// # Safety
///
/// As for [`print()`].
unsafe fn info_of(rule: *const sys::xt_entry_match) -> XtTrafficMtinfo {
    // SAFETY: The caller passes a match of this type, whose data follow the header. The data may be
    // unaligned if the rule comes from nf_tables.
    unsafe { rule.add(1).cast::<XtTrafficMtinfo>().read_unaligned() }
}

/// Prints with the C library, so that the text is buffered together with the output of iptables.
fn output(text: &str) {
    if let Ok(text) = CString::new(text) {
        // SAFETY: Both strings are valid, and the format has one conversion, for a string.
        unsafe { sys::printf(c"%s".as_ptr(), text.as_ptr()) };
    }
}

/// Exits from iptables with a message and status 2.
fn fail(message: &str) -> ! {
    let message = format!("{}: {message}", abi::MATCH_NAME.to_string_lossy());
    let message = CString::new(message).unwrap_or_default();
    // SAFETY: iptables sets `xt_params` and its `exit_err` before it loads extensions. The strings
    // are valid, and the function does not return.
    unsafe {
        match (*sys::xt_params).exit_err {
            Some(exit) => exit(sys::xtables_exittype_PARAMETER_PROBLEM, c"%s".as_ptr(), message.as_ptr()),
            None => std::process::exit(sys::xtables_exittype_PARAMETER_PROBLEM as i32),
        }
    }
}
