//! Progress: a bar on a terminal, one log line every few seconds elsewhere, both with the same numbers.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::logging::LogFormat;
use crate::rotation::{Activity, Progress};

/// Shows progress until dropped; the last line tells how far it went, however short the work was.
pub struct Shown {
    shower: JoinHandle<()>,
    bar: Option<ProgressBar>,
    progress: watch::Receiver<Progress>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.shower.abort();
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None => line(&self.progress.borrow()),
        }
    }
}

/// Starts showing what `progress` is fed with.
pub fn show(format: LogFormat, every: Duration, progress: watch::Receiver<Progress>) -> Shown {
    if format.is_json() {
        let shower = tokio::spawn(lines(every, progress.clone()));
        return Shown { shower, bar: None, progress };
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
    // The message has lines of its own below the bar, so that all of it fits into 80 columns.
    let style = ProgressStyle::with_template("{prefix:>8} {bar:36} {percent:>3}%  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─");
    bar.set_style(style);
    let shower = tokio::spawn(bars(bar.clone(), progress.clone()));
    Shown { shower, bar: Some(bar), progress }
}

async fn lines(every: Duration, progress: watch::Receiver<Progress>) {
    loop {
        tokio::time::sleep(every).await;
        line(&progress.borrow().clone());
    }
}

fn line(p: &Progress) {
    if p.pass == 0 {
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
        "progress"
    );
}

async fn bars(bar: ProgressBar, mut progress: watch::Receiver<Progress>) {
    while progress.changed().await.is_ok() {
        let p = progress.borrow_and_update().clone();
        if p.pass == 0 {
            continue;
        }
        bar.set_prefix(match p.activity {
            Some(Activity::Full) => format!("pass {}", p.pass),
            Some(Activity::Sweep) => format!("sweep {}", p.pass),
            Some(Activity::DryRun) => Activity::DryRun.to_string(),
            None => String::new(),
        });
        bar.set_length(p.rows_total.max(0) as u64);
        bar.set_position(p.rows_done.max(0) as u64);
        bar.set_message(message(&p));
    }
}

/// What stands beside the bar, and below it.
fn message(p: &Progress) -> String {
    let left = p.eta_seconds.map_or_else(String::new, |s| format!("{} left", duration(s)));
    let quarantined = match p.totals.quarantined {
        0 => String::new(),
        n => format!(", {} quarantined", thousands(n)),
    };
    // The word alone: what was measured would not fit, and `status` tells it.
    let pace = if p.waiting { "waiting" } else { "slowed down" };
    let throttle = p
        .throttle
        .as_ref()
        .map_or_else(String::new, |why| format!("\n{:8} {pace}: {}", "", why.reason.as_str()));
    format!(
        "{left}\n{:8} {} of {} rows, {} rows/s{quarantined}{throttle}",
        "",
        thousands(p.rows_done),
        thousands(p.rows_total),
        thousands(p.rows_per_second as i64),
    )
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
    use super::{duration, message, thousands};
    use crate::rotation::throttle::{Reason, Why};
    use crate::rotation::{Counters, Progress};

    #[test]
    fn what_stands_beside_the_bar_fits_into_80_columns() {
        let p = Progress {
            rows_done: 123_456_789,
            rows_total: 1_234_567_890,
            rows_per_second: 123_456.7,
            eta_seconds: Some(8999.0),
            pass: 12,
            activity: Some(crate::rotation::Activity::Sweep),
            totals: Counters { quarantined: 1234, ..Counters::default() },
            throttle: Some(Why { reason: Reason::ReplicationLag, detail: "x".repeat(90) }),
            waiting: true,
        };
        let message = message(&p);
        let lines: Vec<&str> = message.lines().collect();
        assert_eq!(lines.len(), 3, "{message}");
        assert_eq!(lines[2].trim(), "waiting: replication lag");
        assert!(8 + 1 + 36 + 1 + 4 + 2 + lines[0].len() <= 80, "{message}");
        assert!(lines[1..].iter().all(|line| line.len() <= 80), "{message}");
        assert_eq!([5.0, 65.0, 8999.0].map(duration), ["5 s", "1 min 5 s", "2 h 29 min"]);
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(-1234), "-1 234");
        assert_eq!(thousands(1_234_567), "1 234 567");
    }
}
