//! Variables: a wrong name is warned about, with the nearest right one; a bad value names the variable it came from.

use crate::support::rekey_without_database;

#[test]
fn a_wrong_name_is_warned_about_with_the_nearest_right_one() {
    let explained = rekey_without_database(["explain", "0", "--log-format", "pretty"])
        .env("REKEY_LEASE_TLL", "secret-value")
        .env("REKEY_NEWKEY", "file:x")
        .env("REKEY_ENTIRELY_ELSE", "1")
        .env("REKEY_SERVICE_HOST", "10.0.0.1")
        .env("REKEY_METRICS_PORT_9090_TCP", "tcp://10.0.0.1:9090")
        .env("REKEY_TERMINATION_LOG", "/dev/null")
        .env("REKEY_WORKERS", "2")
        .exits(0);
    for said in [
        "Unknown variable REKEY_LEASE_TLL. Did you mean REKEY_LEASE_TTL?",
        "Unknown variable REKEY_NEWKEY. Did you mean REKEY_NEW_KEY?",
        "Unknown variable REKEY_ENTIRELY_ELSE. ",
    ] {
        assert!(explained.stderr.contains(said), "{said}: {explained}");
    }
    assert_eq!(explained.stderr.lines().count(), 3, "{explained}");
    explained.says_none_of(&["secret-value"]);
}

#[test]
fn a_bad_value_names_the_variable_it_came_from() {
    for (variable, value) in [
        ("REKEY_WORKERS", "many"),
        ("REKEY_LEASE_TTL", "1s"),
        ("REKEY_OUTPUT", "xml"),
        ("REKEY_DRY_RUN", "perhaps"),
        ("REKEY_DEADLINE", "soon"),
        ("REKEY_OLD_KEY", "vault:secret"),
        ("REKEY_ALSO_KEY", "nonsense"),
        ("REKEY_ALLOW", "no-such-finding"),
        ("REKEY_COLOR", "sometimes"),
        ("REKEY_MAX_RATE", "fast"),
    ] {
        let refused = rekey_without_database(["run"]).env(variable, value).run();
        assert!([2, 3].contains(&refused.code().unwrap_or(0)), "{variable}: {refused}");
        assert!(refused.stderr.contains(variable), "{variable}: {refused}");
    }
    // What was typed is called by its flag, whatever the environment says.
    let typed = rekey_without_database(["run", "--workers", "many"]).env("REKEY_WORKERS", "2").exits(2);
    assert!(typed.stderr.contains("--workers") && !typed.stderr.contains("REKEY_WORKERS"), "{typed}");
}
