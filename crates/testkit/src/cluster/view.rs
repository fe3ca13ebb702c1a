//! What each node says of the cluster (`GET /cluster`), and whether all say the same and it is true.

use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::time::sleep;

use super::process::NodeProcess;

/// One node's view of the cluster: what is used of it here.
#[derive(Clone, Debug, Deserialize)]
pub struct ClusterReport {
    /// Whose view it is.
    pub seen_by: String,
    /// Whether it has heard who else is there.
    pub settled: bool,
    /// Every node that it sees, itself included.
    pub nodes: Vec<NodeReport>,
    /// Rooms on all nodes together.
    pub rooms: usize,
    /// Members in them.
    pub members: usize,
    /// What two nodes that know the same members both say.
    pub digest: String,
}

/// One node in a view.
#[derive(Clone, Debug, Deserialize)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// What it is doing, as far as is known: `up`, `draining`, `silent` …
    pub state: String,
    /// Whether all that it said of its members has arrived.
    pub complete: bool,
}

/// What must be true for all to agree.
#[derive(Clone, Debug)]
pub struct Truth {
    /// Who runs, by name.
    pub nodes: Vec<String>,
    /// Rooms with members.
    pub rooms: usize,
    /// Members.
    pub members: usize,
}

/// Why nodes do not see each other or know different members; `None`: they agree.
#[must_use]
pub fn disagreement(reports: &[ClusterReport], truth: &Truth) -> Option<String> {
    for report in reports {
        let by = &report.seen_by;
        let mut up: Vec<&str> =
            report.nodes.iter().filter(|node| node.state == "up").map(|node| node.name.as_str()).collect();
        up.sort_unstable();
        if up != truth.nodes.iter().map(String::as_str).collect::<Vec<_>>() || report.nodes.len() != up.len() {
            let seen: Vec<String> = report.nodes.iter().map(|node| format!("{} {}", node.name, node.state)).collect();
            return Some(format!("{by} sees {seen:?}, not just {:?}", truth.nodes));
        }
        if let Some(part) = report.nodes.iter().find(|node| !node.complete) {
            return Some(format!("{by} does not know all of {}'s members", part.name));
        }
        if report.digest != reports[0].digest {
            return Some(format!("{by} and {} know other members", reports[0].seen_by));
        }
    }
    None
}

/// Whether members are known that are not there, or the other way round, as far as numbers tell; `None`: all say the truth.
#[must_use]
pub fn untruth(reports: &[ClusterReport], truth: &Truth) -> Option<String> {
    let wrong = reports.iter().find(|report| (report.rooms, report.members) != (truth.rooms, truth.members))?;
    let (by, rooms, members) = (&wrong.seen_by, wrong.rooms, wrong.members);
    Some(format!("{by} knows {rooms} rooms and {members} members, not {} and {}", truth.rooms, truth.members))
}

/// When all nodes were seen to agree, and to agree on the truth.
#[derive(Debug, Default)]
pub struct Agreement {
    /// They see each other and know the same members.
    pub agreed: Option<Instant>,
    /// And these are exactly those who are there.
    pub on_truth: Option<Instant>,
    /// Why not, at the last look.
    pub why: Option<String>,
}

/// Asks until all nodes agree on the truth, or the time given is over.
pub async fn agree(nodes: &[&NodeProcess], truth: &Truth, within: Duration) -> Agreement {
    let deadline = Instant::now() + within;
    let mut agreement = Agreement::default();
    loop {
        let asked = Instant::now();
        let (differ, lie) = match ask(nodes).await {
            Ok(reports) => (disagreement(&reports, truth), untruth(&reports, truth)),
            Err(why) => (Some(why), None),
        };
        if differ.is_none() {
            agreement.agreed.get_or_insert(asked);
        }
        agreement.why = differ.or(lie);
        if agreement.why.is_none() {
            agreement.on_truth = Some(asked);
        }
        if agreement.why.is_none() || Instant::now() > deadline {
            return agreement;
        }
        sleep(Duration::from_millis(25)).await;
    }
}

async fn ask(nodes: &[&NodeProcess]) -> Result<Vec<ClusterReport>, String> {
    let mut reports = Vec::new();
    for node in nodes {
        let (status, body) =
            node.admin("GET", "/cluster").await.map_err(|error| format!("{} does not answer: {error}", node.name()))?;
        let report = serde_json::from_str(&body);
        reports.push(report.map_err(|error| format!("{} says {status} {body:?}: {error}", node.name()))?);
    }
    Ok(reports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(by: &str, change: impl FnOnce(&mut ClusterReport)) -> ClusterReport {
        let text = format!(
            r#"{{"seen_by": "{by}", "settled": true, "bus": "up", "rooms": 2, "members": 5, "digest": "ab",
                "nodes": [{{"name": "one", "state": "up", "own": true, "complete": true}},
                          {{"name": "two", "state": "up", "complete": true}}]}}"#
        );
        let mut report = serde_json::from_str(&text).unwrap();
        change(&mut report);
        report
    }

    #[test]
    fn all_must_say_the_same_and_the_truth() {
        let truth = Truth { nodes: vec!["one".into(), "two".into()], rooms: 2, members: 5 };
        let with = |change: fn(&mut ClusterReport)| {
            let reports = [report("one", |_| ()), report("two", change)];
            disagreement(&reports, &truth).or_else(|| untruth(&reports, &truth)).unwrap_or_default()
        };
        assert_eq!(with(|_| ()), "");
        assert_eq!(with(|two| two.members = 6), "two knows 2 rooms and 6 members, not 2 and 5");
        assert_eq!(with(|two| two.rooms = 3), "two knows 3 rooms and 5 members, not 2 and 5");
        assert_eq!(with(|two| two.digest = "cd".into()), "two and one know other members");
        assert!(with(|two| two.nodes[0].state = "silent".into()).starts_with("two sees [\"one silent\", \"two up\"]"));
        assert!(with(|two| drop(two.nodes.pop())).starts_with("two sees [\"one up\"]"));
        assert_eq!(with(|two| two.nodes[0].complete = false), "two does not know all of one's members");
        let ghost = |two: &mut ClusterReport| {
            two.nodes.push(NodeReport { name: "three".into(), state: "silent".into(), complete: true });
        };
        assert!(with(ghost).contains("three silent"));
    }
}
