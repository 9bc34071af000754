//! Progress: a bar on a terminal, a line of text or JSON every few seconds elsewhere, all with the same numbers.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::console::{self, Bar, Console};
use crate::rotation::{Activity, Progress};

/// How often a progress line is written where there is no bar.
const EVERY: Duration = Duration::from_secs(3);

/// Columns before the bar, for its name; what stands below it is indented as far.
const MARGIN: usize = 8;

/// Shows progress until dropped. As JSON, the last line tells how far it went, however short the work was.
pub struct Shown {
    shower: JoinHandle<()>,
    console: Console,
    progress: watch::Receiver<Progress>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.shower.abort();
        if self.console.json {
            record(&self.progress.borrow());
        } else if self.console.bars {
            console::take_off();
        }
    }
}

/// Starts showing what `progress` is fed with.
pub fn show(console: Console, progress: watch::Receiver<Progress>) -> Shown {
    let shower = match console.bars {
        true => tokio::spawn(draw(Bar::put_up(), progress.clone())),
        false => tokio::spawn(lines(console, progress.clone())),
    };
    Shown { shower, console, progress }
}

async fn lines(console: Console, progress: watch::Receiver<Progress>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let p = progress.borrow().clone();
        if console.json {
            record(&p);
        } else if p.pass > 0 || p.outage.is_some() {
            tracing::info!("{}", sentence(&p));
        }
    }
}

/// As JSON, each number in a field of its own.
fn record(p: &Progress) {
    if p.pass == 0 && p.outage.is_none() {
        return;
    }
    tracing::info!(
        rows_done = p.rows_done,
        rows_total = p.rows_total,
        rows_per_second = p.rows_per_second.round(),
        eta_seconds = p.eta_seconds.map(f64::round),
        pass = p.pass,
        pass_kind = p.activity.map(Activity::as_str),
        re_encrypted = p.totals.re_encrypted,
        already_on_key = p.totals.already_on_key,
        null = p.totals.null_rows,
        lost_races = p.totals.lost_races,
        quarantined = p.totals.quarantined,
        throttle = p.throttle.as_ref().map(ToString::to_string),
        waiting = p.waiting,
        unreachable_seconds = p.outage.map(|outage| outage.lasting.as_secs()),
        "progress"
    );
}

/// `pass 1: 32 164 of about 80 200 rows, 40 %, 5 210 rows/s, 9 s left`.
fn sentence(p: &Progress) -> String {
    let of = if p.estimated { "of about" } else { "of" };
    let mut said = format!(
        "{}: {} {of} {} rows, {} %",
        name(p),
        thousands(p.rows_done),
        thousands(p.rows_total),
        percent(p),
    );
    if !stands_still(p) {
        said.push_str(&pace(p));
    }
    said.push_str(&quarantined(p));
    if let Some(hold) = hold(p) {
        said.push_str(&format!("; {hold}"));
    }
    said
}

async fn draw(bar: Bar, mut progress: watch::Receiver<Progress>) {
    loop {
        let drawn = drawn(&progress.borrow_and_update(), console::columns());
        bar.draw(drawn);
        if progress.changed().await.is_err() {
            return;
        }
    }
}

/// The bar, and what stands below it; no line is as wide as the terminal.
fn drawn(p: &Progress, columns: usize) -> String {
    let below = |text: &str| format!("\n{:MARGIN$} {}", "", cut(text, columns.saturating_sub(MARGIN + 2)));
    if p.pass == 0 && p.outage.is_none() {
        return format!("{:>MARGIN$}", "starting");
    }
    let left = match p.eta_seconds {
        Some(seconds) if !stands_still(p) => format!("{} left", duration(seconds)),
        _ => String::new(),
    };
    let width = columns.saturating_sub(MARGIN + 28).clamp(10, 60);
    let filled = width * percent(p) as usize / 100;
    let tip = if filled < width { "╸" } else { "" };
    let bar = format!("{}{tip}{}", "━".repeat(filled), "─".repeat(width.saturating_sub(filled + 1)));
    let mut lines = format!("{:>MARGIN$} {bar} {:>3} %  {left}", name(p), percent(p));
    lines = cut(lines.trim_end(), columns.saturating_sub(1));
    lines.push_str(&below(&format!(
        "{} of {}{} rows, {} rows/s{}",
        thousands(p.rows_done),
        if p.estimated { "about " } else { "" },
        thousands(p.rows_total),
        thousands(p.rows_per_second as i64),
        quarantined(p),
    )));
    if let Some(hold) = hold(p) {
        lines.push_str(&below(&hold));
    }
    lines
}

/// `pass 1`, `sweep 2`, `dry run`.
fn name(p: &Progress) -> String {
    match p.activity {
        Some(Activity::Full) => format!("pass {}", p.pass),
        Some(Activity::Sweep) => format!("sweep {}", p.pass),
        Some(Activity::DryRun) => Activity::DryRun.to_string(),
        None => "run".to_owned(),
    }
}

fn percent(p: &Progress) -> i64 {
    if p.rows_total > 0 { (p.rows_done * 100 / p.rows_total).clamp(0, 100) } else { 100 }
}

fn pace(p: &Progress) -> String {
    let left = p.eta_seconds.map_or_else(String::new, |seconds| format!(", {} left", duration(seconds)));
    format!(", {} rows/s{left}", thousands(p.rows_per_second as i64))
}

fn quarantined(p: &Progress) -> String {
    match p.totals.quarantined {
        0 => String::new(),
        n => format!(", {} quarantined", thousands(n)),
    }
}

/// Whether a rate would say nothing of what is to come.
fn stands_still(p: &Progress) -> bool {
    p.waiting || p.outage.is_some()
}

/// Why it waits, or is slow.
fn hold(p: &Progress) -> Option<String> {
    if let Some(outage) = &p.outage {
        let attempts = if outage.attempts == 1 { "attempt" } else { "attempts" };
        return Some(format!(
            "waiting: database unreachable for {}, {} {attempts}",
            duration(outage.lasting.as_secs_f64()),
            outage.attempts
        ));
    }
    let why = p.throttle.as_ref()?.to_string();
    Some(match p.waiting {
        true if why.starts_with("waiting") => why,
        true => format!("waiting: {why}"),
        false => format!("slowed down: {why}"),
    })
}

/// The text, or as much of it as there is room for.
fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let kept: String = text.chars().take(columns.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// `42 s`, `7 min 5 s`, `3 h 20 min`.
fn duration(seconds: f64) -> String {
    match seconds.clamp(0.0, 1e9) as u64 {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3600, s / 60 % 60),
    }
}

/// 1234567 → `1 234 567`, with a narrow no-break space nobody's terminal lacks: a plain space.
pub fn thousands(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = String::with_capacity(digits.len() + 6);
    if n < 0 {
        out.push('-');
    }
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{drawn, duration, sentence, thousands};
    use crate::rotation::throttle::{Reason, Why};
    use crate::rotation::{Activity, Counters, Outage, Progress};

    fn far_on() -> Progress {
        Progress {
            rows_done: 123_456_789,
            rows_total: 1_234_567_890,
            estimated: true,
            rows_per_second: 123_456.7,
            eta_seconds: Some(8999.0),
            pass: 12,
            activity: Some(Activity::Sweep),
            totals: Counters { quarantined: 1234, ..Counters::default() },
            throttle: Some(Why { reason: Reason::ReplicationLag, detail: "x".repeat(90) }),
            waiting: true,
            outage: None,
        }
    }

    #[test]
    fn no_line_is_as_wide_as_the_terminal() {
        for columns in [20, 40, 80, 100, 160] {
            let drawn = drawn(&far_on(), columns);
            assert_eq!(drawn.lines().count(), 3, "{drawn}");
            assert!(drawn.lines().all(|line| line.chars().count() < columns), "{columns}: {drawn}");
        }
        let drawn = drawn(&far_on(), 80);
        let lines: Vec<&str> = drawn.lines().collect();
        assert!(lines[0].starts_with("sweep 12 ━━━━╸─") && lines[0].ends_with("─  10 %"), "{drawn}");
        assert!(lines[2].trim().starts_with("waiting: replication lag: xxx"), "{drawn}");
        assert_eq!([5.0, 65.0, 8999.0].map(duration), ["5 s", "1 min 5 s", "2 h 29 min"]);
    }

    #[test]
    fn why_it_waits_is_said_once_and_in_full_where_there_is_room() {
        let lease = Why { reason: Reason::Lease, detail: "pod-1, silent 14 s, free in 16 s".into() };
        let mut p = Progress { throttle: Some(lease), ..far_on() };
        let told = "waiting for the lease of: pod-1, silent 14 s, free in 16 s";
        assert_eq!(drawn(&p, 100).lines().last().unwrap().trim(), told);
        assert_eq!(
            sentence(&p),
            format!("sweep 12: 123 456 789 of about 1 234 567 890 rows, 10 %, 1 234 quarantined; {told}")
        );
        p.outage = Some(Outage { lasting: Duration::from_secs(12), attempts: 5 });
        let away = "waiting: database unreachable for 12 s, 5 attempts";
        assert_eq!(drawn(&p, 80).lines().last().unwrap().trim(), away);
        (p.outage, p.throttle, p.estimated, p.waiting) = (None, None, false, false);
        p.totals.quarantined = 0;
        assert_eq!(
            sentence(&p),
            "sweep 12: 123 456 789 of 1 234 567 890 rows, 10 %, 123 456 rows/s, 2 h 29 min left"
        );
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(-1234), "-1 234");
        assert_eq!(thousands(1_234_567), "1 234 567");
    }
}
