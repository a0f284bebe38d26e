//! A device that does not exist stops the start with an error.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use dpdk::{Eal, EalError, EalOptions};

#[test]
fn missing_device_is_an_error() {
    let cpus = std::thread::available_parallelism().unwrap();
    let options = EalOptions {
        vdevs: vec!["net_nosuch0".into()],
        ..EalOptions::without_hardware(64)
    };
    assert!(matches!(Eal::init(&options), Err(EalError::Init(..))));
    assert_eq!(
        std::thread::available_parallelism().unwrap(),
        cpus,
        "the mask is given back on failure too"
    );
}
