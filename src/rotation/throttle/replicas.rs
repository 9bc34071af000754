//! The replicas met so far: one that vanished from the view is not one without lag.

use std::collections::BTreeMap;
use std::time::Duration;

use super::signals::Signals;

/// How many replicas of each name there were at most. The name alone: an address changes with every pod, and standbys
/// that were given no name are all called `walreceiver`.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<String, Met>);

#[derive(Debug, Default)]
struct Met {
    most: usize,
    fewer_since: Option<Duration>,
}

impl Known {
    /// Takes in who is there; names one that is not, and since when.
    pub(super) fn missing(&mut self, now: Duration, signals: &Signals) -> Option<(String, Duration)> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for replica in &signals.replicas {
            *counts.entry(&replica.name).or_default() += 1;
        }
        // Unseen because unreadable is not gone.
        if signals.unreadable.is_some() {
            return None;
        }
        for (name, count) in &counts {
            let met = self.0.entry((*name).to_owned()).or_default();
            met.most = met.most.max(*count);
        }
        let mut missing = None;
        for (name, met) in &mut self.0 {
            let count = counts.get(name.as_str()).copied().unwrap_or(0);
            if count >= met.most {
                met.fewer_since = None;
                continue;
            }
            let since = *met.fewer_since.get_or_insert(now);
            let who =
                if met.most > 1 { format!("one of {} replicas {name}", met.most) } else { name.clone() };
            missing = missing.or(Some((who, since)));
        }
        missing
    }
}
