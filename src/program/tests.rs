//! Real programs: what they get, what they give, and how they end.

use std::time::Instant;

use super::*;

fn program(text: &str) -> Program {
    Program::parse(text).unwrap_or_else(|| panic!("{text}"))
}

async fn printed(text: &str) -> String {
    let printed = program(text).run(None).await.unwrap_or_else(|e| panic!("{e}"));
    String::from_utf8(printed.to_vec()).unwrap()
}

#[test]
fn words_are_split_as_a_shell_splits_them() {
    assert_eq!(program(r#"a 'b c' "d e" f\ g"#).words(), ["a", "b c", "d e", "f g"]);
    for text in ["", "  ", "a 'b", "'' a", "a\nb"] {
        assert!(Program::parse(text).is_none(), "{text:?}");
    }
}

#[tokio::test]
async fn one_line_end_is_dropped_and_no_shell_runs() {
    assert_eq!(printed(r"printf 'key\n'").await, "key");
    assert_eq!(printed(r"printf 'key\r\n'").await, "key");
    assert_eq!(printed(r"printf 'key\n\n'").await, "key\n");
    assert_eq!(printed("echo $HOME '*' ; false").await, "$HOME * ; false");
    assert_eq!(printed("true").await, "");
}

#[tokio::test]
async fn it_has_no_stdin_no_terminal_and_no_file_of_ours() {
    let (ours, _other) = std::io::pipe().unwrap();
    // As one that a shell opened for rekey: not closed by an exec.
    rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::empty()).unwrap();
    assert_eq!(printed("cat").await, "");
    assert_eq!(printed("sh -c '(: </dev/tty) 2>/dev/null || echo none'").await, "none");
    assert_eq!(printed("sh -c 'ls /proc/$$/fd'").await, "0\n1\n2");
    assert_eq!(
        printed("sh -c 'ps -o sid= -o pgid= -p $$ | tr -s \" \" \"\\n\" | grep . | sort -u | wc -l'").await,
        "1"
    );
}

#[tokio::test]
async fn what_it_is_fed_ends() {
    let given = program("cat").run(Some(b"the key")).await.unwrap();
    assert_eq!(*given, b"the key");
    program("true").run(Some(b"the key")).await.unwrap();
}

#[tokio::test]
async fn a_failure_says_what_it_said_and_no_key() {
    let key = "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MGFi";
    let text = format!("sh -c 'echo {key}; echo permission denied for {key} >&2; exit 2'");
    let failure = program(&text).run(None).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Key);
    assert_eq!(
        failure.to_string(),
        "the program sh ended with exit 2; it said: permission denied for (masked)"
    );
    assert_eq!(program("sh -c 'exit 75'").run(None).await.unwrap_err().exit(), Exit::Unavailable);
    let absent = program("rekey-no-such-program x").run(None).await.unwrap_err();
    assert_eq!(absent.exit(), Exit::Usage);
    assert!(absent.to_string().contains("was not found"), "{absent}");
    let piped = program("cat /nowhere | base64").run(None).await.unwrap_err();
    assert!(piped.hint().contains("sh -c"), "{}", piped.hint());
}

#[tokio::test]
async fn what_prints_without_end_or_runs_without_end_is_killed_with_its_children() {
    let endless = program("yes").run(None).await.unwrap_err();
    assert!(endless.to_string().contains("more than 64 KiB"), "{endless}");

    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let slow = program(&format!("sh -c 'sleep 600 & echo $! >{}; echo waiting >&2; wait'", pid.display()));
    let started = Instant::now();
    let failure = slow.run_within(Duration::from_secs(2), None).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Unavailable);
    assert!(failure.to_string().contains("was killed"), "{failure}");
    assert!(started.elapsed() < Duration::from_secs(30));
    gone(&pid);
}

/// A stop gives the work up: the program does not go on by itself.
#[tokio::test]
async fn what_is_given_up_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let slow = program(&format!("sh -c 'sleep 600 & echo $! >{}; wait'", pid.display()));
    let until_started = async {
        while std::fs::read_to_string(&pid).map_or(true, |text| !text.ends_with('\n')) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        done = slow.run(None) => panic!("{}", done.is_ok()),
        () = until_started => {}
    }
    gone(&pid);
}

/// Waits until the process whose id is in the file has ended.
fn gone(pid: &std::path::Path) {
    let id = std::fs::read_to_string(pid).unwrap();
    let status = format!("/proc/{}/stat", id.trim());
    // A dead child of nobody may stay a zombie in a container whose first process reaps none.
    while std::fs::read_to_string(&status).is_ok_and(|stat| !stat.contains(") Z ")) {
        std::thread::sleep(Duration::from_millis(10));
    }
}
