//! A million entries of what is known of IPv4 addresses.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that measures")]

mod common;

#[test]
fn a_million_entries() {
    common::scale::a_million(false);
}
