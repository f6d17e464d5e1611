// SPDX-License-Identifier: GPL-2.0
//! The tests that need a running kernel. One binary, so that all of them share the host's cores fairly; a file
//! for each subject.

mod bytes;
mod captures;
mod clear;
mod commands;
mod drop_reason;
mod extensions;
mod files;
mod harness;
mod headers;
mod isolation;
mod lifetimes;
mod limits;
mod mirror;
mod model;
mod namespaces;
mod offloads;
mod options;
mod rules;
mod samples;
mod service;
mod sizes;
mod stock;
mod support;
mod time;
