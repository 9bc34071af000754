//! The places where a test build can be made to fail are in a test build only.

/// Whether the binary under test asks for the environment variables that fault points obey.
fn binary_knows(name: &str) -> bool {
    let binary = std::env::var_os("REKEY_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_rekey").into());
    let bytes = std::fs::read(binary).expect("the binary reads");
    bytes.windows(name.len()).any(|window| window == name.as_bytes())
}

#[test]
fn fault_points_are_in_the_binary_only_where_they_were_asked_for() {
    assert_eq!(binary_knows("REKEY_FAULT_AT"), cfg!(feature = "fault-points"));
    assert!(binary_knows("REKEY_LEASE_TTL"), "this test would see it");
}
