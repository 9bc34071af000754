//! Tools that keep a copy of the table up to date by triggers: pg_repack and its kin, which put the copy in the table's
//! place in the end, and trigger-based replication. Disabling such a trigger loses what is written meanwhile: rows would
//! return to the old key, or subscribers would keep it, after a clean verify.

use super::finding::{About, Finding, Kind};
use super::triggers::Trigger;
use crate::store::TABLE;

pub(super) const COPIER: About = About {
    name: "table-copier",
    may_be_allowed: true,
    meaning: "A tool copies the table by triggers: pg_repack or another tool that swaps tables, or \
        trigger-based replication",
    remedy: "Wait until a table-swapping tool has finished. Give the new key to readers of a replicated \
        copy. Never disable the tool's trigger: the copy would bring rows back to the old key",
};

/// What becomes of the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Becomes {
    /// It takes the table's place.
    TheTable,
    /// It is for others to read.
    Replica,
}

/// Each tool, and the names it gives: of a trigger, of the trigger's function, or, with a dot, of that function's schema. A
/// `*` stands for anything. They were taken from the tools' sources.
const TOOLS: &[(&str, Becomes, &[&str])] = &[
    ("pg_repack", Becomes::TheTable, &["repack.", "repack_trigger"]),
    ("pg_reorg", Becomes::TheTable, &["reorg.", "z_reorg_trigger"]),
    ("pg-osc", Becomes::TheTable, &["primary_to_audit_table_trigger"]),
    ("pgroll.", Becomes::TheTable, &["pgroll.", "_pgroll_trigger_*"]),
    ("Reshape", Becomes::TheTable, &["reshape.", "reshape_*"]),
    ("pgslice", Becomes::TheTable, &["*_mirror_trigger"]),
    ("Slony-I", Becomes::Replica, &["*_logtrigger", "logtrigger", "*_denyaccess"]),
    ("Londiste", Becomes::Replica, &["londiste.", "pgq.", "_londiste_*"]),
    ("Bucardo", Becomes::Replica, &["bucardo.", "bucardo_*"]),
    ("SymmetricDS", Becomes::Replica, &["sym_on_*", "fsym_on_*"]),
    ("Mimeo", Becomes::Replica, &["mimeo.", "*_mimeo_trig"]),
    ("rubyrep", Becomes::Replica, &["rr_*_trigger", "rr_ptz__*"]),
];

fn which(trigger: &Trigger) -> Option<(&'static str, Becomes)> {
    let schema = format!("{}.", trigger.function_schema);
    let names = [&trigger.name, &schema, &trigger.function_name];
    let tool = TOOLS.iter().find(|(.., patterns)| {
        patterns.iter().any(|pattern| names.iter().any(|name| matches(pattern, name)))
    });
    tool.map(|&(name, becomes, _)| (name, becomes))
}

fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.split_once('*'), name.trim_matches('"')) {
        (None, name) => name == pattern,
        (Some((start, end)), name) => {
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
    }
}

/// Whether a tool made the trigger; the finding is `None` where nothing follows from it.
pub(super) fn look(trigger: &Trigger) -> Option<Option<Finding>> {
    let (tool, becomes) = which(trigger)?;
    let Trigger { name, fires, .. } = trigger;
    let (message, remedy) = match becomes {
        Becomes::TheTable if *fires => (
            format!("{tool} is copying {TABLE} (trigger {name}) and will replace the table with its copy"),
            format!(
                "Wait until {tool} has finished, then run the same command again. Do not disable or drop its \
                 trigger while it works: the copy would bring all rows back to the old key. If no {tool} is \
                 running, remove the remains of an earlier one as its manual describes"
            ),
        ),
        Becomes::TheTable => (
            format!(
                "{tool} has copied {TABLE}, but its trigger {name} is disabled. After the swap, every row \
                 would be back on the old key"
            ),
            format!(
                "Stop {tool} before it swaps the tables, and remove its trigger and its copy as its \
                manual describes"
            ),
        ),
        Becomes::Replica if *fires => (
            format!(
                "{tool} replicates {TABLE} (trigger {name}). Its subscribers get every re-encrypted row \
                and need the new key"
            ),
            "Give the subscribers the new key when the application gets it, and add `--allow table-copier`. \
             Do not disable the trigger: the subscribers would keep rows on the old key"
                .to_owned(),
        ),
        Becomes::Replica => return Some(None),
    };
    Some(Some(Finding::refuse(Kind::TableCopier, message, remedy)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, function_schema: &str, function_name: &str) -> Option<&'static str> {
        which(&Trigger {
            name: name.into(),
            function_schema: function_schema.into(),
            function_name: function_name.into(),
            fires: true,
            always: true,
        })
        .map(|(tool, _)| tool)
    }

    #[test]
    fn tools_are_known_by_the_names_they_give() {
        assert_eq!(tool("repack_trigger", "repack", "repack_trigger"), Some("pg_repack"));
        assert_eq!(tool("\"_Ring_logtrigger\"", "_Ring", "logtrigger"), Some("Slony-I"));
        assert_eq!(tool("_londiste_q", "pgq", "logutriga"), Some("Londiste"));
        assert_eq!(tool("bucardo_delta", "bucardo", "delta_public_provider_connections"), Some("Bucardo"));
        assert_eq!(tool("_pgroll_trigger_provider_connections_x", "public", "f"), Some("pgroll."));
        for (name, schema, function) in
            [("touch", "public", "touch"), ("repack", "public", "reorg"), ("audit", "audit", "audit_trigger")]
        {
            assert_eq!(tool(name, schema, function), None, "{name}");
        }
    }
}
