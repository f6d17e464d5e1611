// SPDX-License-Identifier: GPL-2.0-only
//! The tests in guests with a debug kernel, one file for each subject. They are one binary so that
//! the test runner can limit how many guests run at once.

mod bytes;
mod captures;
mod clear;
mod commands;
mod drop_reason;
mod extensions;
mod files;
mod harness;
mod headers;
mod hooks;
mod isolation;
mod lifetimes;
mod limits;
mod mirror;
mod mirror_device;
mod model;
mod namespaces;
mod offloads;
mod options;
mod readers;
mod remote_mirror;
mod replays;
mod rules;
mod samples;
mod selftest;
mod service;
mod sizes;
mod sockets;
mod stock;
mod successors;
mod sweeps;
mod time;
mod user_namespaces;
