//! What DPDK refuses becomes an error, not the end of the process.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use dpdk::{Eal, EalError, EalOptions};

#[test]
fn refused_options_are_errors() {
    // Ours to refuse: DPDK is not called, so another attempt is possible.
    let help = EalOptions {
        extra: vec!["--help".into()],
        ..EalOptions::without_hardware(64)
    };
    assert!(matches!(Eal::init(&help), Err(EalError::Options(_))));
    let nul = EalOptions {
        vdevs: vec!["net\0null".into()],
        ..EalOptions::without_hardware(64)
    };
    assert!(matches!(Eal::init(&nul), Err(EalError::NulByte(_))));

    let unknown = EalOptions {
        extra: vec!["--no-such-option".into()],
        ..EalOptions::without_hardware(64)
    };
    let error = Eal::init(&unknown).unwrap_err();
    assert!(matches!(error, EalError::Init(..)), "{error}");
    assert!(error.to_string().contains("--no-such-option"), "{error}");

    // DPDK's state is half built now.
    assert!(matches!(
        Eal::init(&EalOptions::without_hardware(64)),
        Err(EalError::AlreadyInitialised)
    ));
}
