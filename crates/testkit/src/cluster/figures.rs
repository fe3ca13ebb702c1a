//! What a fault cost: figures of one run from the crowd's outcomes, what of them was not expected, and one line for many runs.
//! Pure. What does not live here: the expectations themselves (`table`).

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::load::Turn;
use super::table::{Bound, Expectation, Fault};

/// Which pairs of members are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// On one node, which is not hit itself.
    Local,
    /// Across nodes, neither of which is hit, nor its way to its broker.
    Bystanders,
    /// All others.
    Hit,
}

/// What one class of pairs suffered.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Suffered {
    /// Pairs of a sender and a receiver.
    pub pairs: usize,
    /// Packets that never came.
    pub lost: u64,
    /// The longest silence beyond a pace, of every receiver to whom it was one at all, in milliseconds.
    pub gaps_ms: Vec<f64>,
}

/// What one run showed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// The fault.
    pub fault: String,
    /// What repeats the run's choices.
    pub seed: u64,
    /// For how long the outage lasted.
    pub outage_ms: f64,
    /// Members of the crowd.
    pub members: usize,
    /// Packets that they sent since everything was calm.
    pub sent: u64,
    /// Pairs on one node.
    pub local: Suffered,
    /// Pairs across nodes that were not hit.
    pub bystanders: Suffered,
    /// The other pairs.
    pub hit: Suffered,
    /// Clients' connections that ended without the client's will.
    pub closed: usize,
    /// What their clients said of it.
    pub how: BTreeMap<String, usize>,
    /// Clients that went to another node without ever being away.
    pub moved: usize,
    /// Packets that a client did not take, since it had no connection.
    pub refused: u64,
    /// Packets that a client had taken and could not send, or does not know to have sent, when its connection ended.
    pub dropped_by_clients: u64,
    /// Packets that came after later ones of their sender.
    pub late: u64,
    /// Packets that came back to who sent them, by way of an earlier connection of its own.
    pub returned: u64,
    /// How long after it was sent a packet was still heard, at most.
    pub oldest_ms: f64,
    /// What may never happen: duplicates, leaks, changes, inventions; clients that gave up.
    pub wrong: Vec<String>,
    /// From the end of the outage until everybody was heard again by everybody.
    pub heard_again_ms: Option<f64>,
    /// From the end of the outage until all nodes saw each other and knew the same members.
    pub agree_ms: Option<f64>,
    /// From the end of the outage until these were exactly those who are there.
    pub true_ms: Option<f64>,
    /// Why one of the two did not come about.
    pub stuck: Vec<String>,
    /// From the blow until a client noticed, for each that did.
    pub notice_ms: Vec<f64>,
    /// From there until it was back, for each.
    pub back_ms: Vec<f64>,
    /// Packets dropped, as the nodes that live count them, by reason.
    pub drops: BTreeMap<String, f64>,
    /// The latest that a timer came on this machine meanwhile.
    pub timer_lag_ms: f64,
    /// Some of the losses, and what their senders and receivers went through, in words.
    pub losses: Vec<String>,
    /// Expectations that were not met.
    pub unmet: Vec<String>,
}

/// In milliseconds.
#[must_use]
pub fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

/// The value that this part of all is not above; 0 where there is none.
#[must_use]
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// What a client went through after a blow: its absences, as the time from the blow to the notice and from there to the
/// return (`None`: still away), with its words; and how often it changed its node without one.
#[must_use]
pub fn absences(turns: &[Turn], struck: Instant) -> (Vec<(Duration, Option<Duration>, String)>, usize) {
    let (mut absences, mut moved) = (Vec::new(), 0);
    for (at, turn) in turns.iter().enumerate().filter(|(_, turn)| turn.at >= struck) {
        match &turn.place {
            Err(why) => {
                let back = turns[at + 1..].iter().find(|later| later.place.is_ok());
                let back = back.map(|back| back.at.saturating_duration_since(turn.at));
                absences.push((turn.at.saturating_duration_since(struck), back, why.clone()));
            }
            Ok(_) if at > 0 && turns[at - 1].place.is_ok() => moved += 1,
            Ok(_) => {}
        }
    }
    (absences, moved)
}

impl Figures {
    /// Where a pair's losses and gaps belong.
    pub fn class(&mut self, class: Class) -> &mut Suffered {
        match class {
            Class::Local => &mut self.local,
            Class::Bystanders => &mut self.bystanders,
            Class::Hit => &mut self.hit,
        }
    }

    /// Compares with what was expected. `allowance` is added to every time: 0 on a machine that has nothing else to do. So is,
    /// to a gap, by how much timers came late on this machine in this run: nodes and brokers had to wait for it too.
    pub fn judge(&mut self, expect: &Expectation, allowance: Duration) {
        let late = Duration::from_secs_f64(self.timer_lag_ms / 1e3);
        let mut unmet = self.stuck.clone();
        let classes = [
            ("local", &self.local, expect.local),
            ("bystanders", &self.bystanders, expect.bystanders),
            ("hit", &self.hit, expect.hit),
        ];
        for (name, suffered, Bound { lost, gap }) in classes {
            if lost.is_some_and(|most| suffered.lost > most) {
                unmet.push(format!("{name}: {} packets lost, of {} pairs", suffered.lost, suffered.pairs));
            }
            let longest = percentile(&suffered.gaps_ms, 1.0);
            if let Some(most) = gap.filter(|most| longest > ms(*most + allowance + late)) {
                unmet.push(format!("{name}: a gap of {longest} ms, more than {most:?}"));
            }
        }
        if expect.closed.is_some_and(|most| self.closed > most) {
            unmet.push(format!("{} connections closed: {:?}", self.closed, self.how));
        }
        // Where nothing may be lost, a packet that was not even taken is no better.
        if expect.hit.lost == Some(0) && self.refused + self.dropped_by_clients > 0 {
            unmet.push(format!("{} packets refused and {} dropped by clients", self.refused, self.dropped_by_clients));
        }
        if expect.late.is_some_and(|most| self.late > most) {
            unmet.push(format!("{} packets came after later ones", self.late));
        }
        if expect.returned.is_some_and(|most| self.returned > most) {
            unmet.push(format!("{} packets came back to their senders", self.returned));
        }
        let (notice, back) = (percentile(&self.notice_ms, 1.0), percentile(&self.back_ms, 0.99));
        let times = [
            ("until heard again", self.heard_again_ms, Some(expect.heard_again)),
            ("after it was sent a packet was heard", Some(self.oldest_ms), expect.oldest),
            ("until all agreed", self.agree_ms, Some(expect.agree)),
            ("until it was the truth", self.true_ms, Some(expect.truth)),
            ("until the last noticed", Some(notice), expect.notice),
            ("p99 from notice to return", Some(back), expect.back),
        ];
        for (what, took, most) in times {
            if let (Some(took), Some(most)) = (took, most)
                && took > ms(most + allowance)
            {
                unmet.push(format!("{took} ms {what}, more than {most:?}"));
            }
        }
        unmet.extend(self.wrong.iter().map(|wrong| format!("wrong: {wrong}")));
        self.unmet = unmet;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "fault                {} for {} ms, seed {}", self.fault, self.outage_ms, self.seed)?;
        writeln!(f, "members, packets     {}, {}", self.members, self.sent)?;
        for (name, suffered) in [("local", &self.local), ("bystanders", &self.bystanders), ("hit", &self.hit)] {
            let gaps = &suffered.gaps_ms;
            let [half, most, all] = [0.5, 0.99, 1.0].map(|part| percentile(gaps, part));
            writeln!(
                f,
                "{name:<20} {} pairs, {} lost; gaps of {} receivers: p50 {half} ms, p99 {most} ms, max {all} ms",
                suffered.pairs,
                suffered.lost,
                gaps.len()
            )?;
        }
        writeln!(f, "connections closed   {}: {:?}; moved without one: {}", self.closed, self.how, self.moved)?;
        writeln!(f, "clients              {} refused, {} dropped", self.refused, self.dropped_by_clients)?;
        writeln!(f, "came late, came back {}, {}; the oldest {} ms after", self.late, self.returned, self.oldest_ms)?;
        writeln!(f, "heard again after    {:?} ms", self.heard_again_ms)?;
        writeln!(f, "all agreed after     {:?} ms, on the truth after {:?} ms", self.agree_ms, self.true_ms)?;
        for (name, times) in [("noticed after", &self.notice_ms), ("back after notice", &self.back_ms)] {
            let [half, most, all] = [0.5, 0.99, 1.0].map(|part| percentile(times, part));
            writeln!(f, "{name:<20} p50 {half} ms, p99 {most} ms, max {all} ms (of {})", times.len())?;
        }
        writeln!(f, "nodes' drops         {:?}", self.drops)?;
        writeln!(f, "a timer's lateness   {} ms at most", self.timer_lag_ms)?;
        write!(f, "not as expected      {}", self.unmet.len())?;
        self.unmet.iter().take(20).try_for_each(|unmet| write!(f, "\n  - {unmet}"))?;
        let explained = if self.unmet.is_empty() { &[][..] } else { &self.losses };
        explained.iter().take(20).try_for_each(|loss| write!(f, "\n  lost: {loss}"))
    }
}

/// What many runs of one fault showed together.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The fault.
    pub fault: &'static str,
    /// Every run.
    pub runs: Vec<Figures>,
}

impl Line {
    /// The heads of the table's columns.
    pub const HEAD: &'static str = "\
fault                runs   bad  closed/run   gap p50   gap p99  lost/run  refused/run  oldest    local lost  local gap  heard again  \
agree max   true max  notice p50  notice max  back p50  back p99";

    /// No runs yet.
    #[must_use]
    pub fn new(fault: &Fault) -> Self {
        Self { fault: fault.name, runs: Vec::new() }
    }

    /// Runs that were not as expected.
    #[must_use]
    pub fn bad(&self) -> usize {
        self.runs.iter().filter(|run| !run.unmet.is_empty()).count()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = &self.runs;
        let all = |values: fn(&Figures) -> &Vec<f64>| -> Vec<f64> { runs.iter().flat_map(values).copied().collect() };
        let mean = |values: fn(&Figures) -> u64| runs.iter().map(values).sum::<u64>() as f64 / runs.len().max(1) as f64;
        let longest = |values: fn(&Figures) -> Option<f64>| match runs.iter().map(values).collect::<Option<Vec<f64>>>()
        {
            Some(values) => format!("{:.0} ms", percentile(&values, 1.0)),
            None => "never".to_owned(),
        };
        let time = |values: &[f64], part| match values {
            [] => "-".to_owned(),
            values => format!("{:.0} ms", percentile(values, part)),
        };
        let mut gaps = all(|run| &run.hit.gaps_ms);
        gaps.extend(all(|run| &run.bystanders.gaps_ms));
        let (local, notice, back) = (all(|run| &run.local.gaps_ms), all(|run| &run.notice_ms), all(|run| &run.back_ms));
        write!(
            f,
            "{:<20} {:>4} {:>5} {:>11.1} {:>9} {:>9} {:>9.1} {:>12.1} {:>9} {:>11} {:>10} {:>12} {:>10} {:>10} {:>11} {:>11} {:>9} {:>9}",
            self.fault,
            runs.len(),
            self.bad(),
            mean(|run| run.closed as u64),
            time(&gaps, 0.5),
            time(&gaps, 0.99),
            mean(|run| run.hit.lost + run.bystanders.lost),
            mean(|run| run.refused + run.dropped_by_clients),
            longest(|run| Some(run.oldest_ms)),
            runs.iter().map(|run| run.local.lost).sum::<u64>(),
            time(&local, 1.0),
            longest(|run| run.heard_again_ms),
            longest(|run| run.agree_ms),
            longest(|run| run.true_ms),
            time(&notice, 0.5),
            time(&notice, 1.0),
            time(&back, 0.5),
            time(&back, 0.99),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::table::{FAULTS, fault};

    fn met() -> Figures {
        Figures { heard_again_ms: Some(50.0), agree_ms: Some(60.0), true_ms: Some(70.0), ..Figures::default() }
    }

    fn unmet(name: &str, change: impl FnOnce(&mut Figures)) -> Vec<String> {
        let mut figures = met();
        change(&mut figures);
        figures.judge(&fault(name).unwrap().expect, Duration::ZERO);
        figures.unmet
    }

    #[test]
    fn every_expectation_can_be_missed() {
        for fault in &FAULTS {
            assert_eq!(unmet(fault.name, |_| ()), [""; 0], "{}", fault.name);
        }
        let one = |name, change: fn(&mut Figures), says: &str| {
            let unmet = unmet(name, change);
            assert!(unmet.len() == 1 && unmet[0].contains(says), "{unmet:?}");
        };
        one("baseline", |run| run.local.lost = 1, "local: 1 packets lost");
        one("all_brokers_stopped", |run| run.bystanders.lost = 2, "bystanders: 2 packets lost");
        one("rolling_restart", |run| run.hit.lost = 3, "hit: 3 packets lost");
        one("rolling_restart", |run| run.refused = 1, "1 packets refused");
        one("all_brokers_stopped", |run| run.local.gaps_ms = vec![251.0, 10.0], "local: a gap of 251 ms");
        assert_eq!(unmet("baseline", |run| (run.local.gaps_ms, run.timer_lag_ms) = (vec![290.0], 40.0)), [""; 0]);
        one("baseline", |run| (run.local.gaps_ms, run.timer_lag_ms) = (vec![291.0], 40.0), "local: a gap of 291 ms");
        one("broker_killed", |run| run.hit.gaps_ms = vec![2_001.0], "hit: a gap of 2001 ms");
        one("broker_slow", |run| run.closed = 1, "1 connections closed");
        one("cut_both_ways", |run| run.late = 1, "1 packets came after later ones");
        one("cut_both_ways", |run| run.heard_again_ms = Some(2_001.0), "until heard again");
        one("cut_both_ways", |run| run.agree_ms = Some(4_001.0), "until all agreed");
        one("cut_both_ways", |run| run.true_ms = Some(4_001.0), "until it was the truth");
        one("all_brokers_stopped", |run| run.oldest_ms = 1_001.0, "after it was sent");
        one("broker_stalled", |run| run.oldest_ms = 4_001.0, "after it was sent");
        one("cut_both_ways", |run| run.returned = 1, "1 packets came back");
        one("node_killed", |run| run.notice_ms = vec![1.0, 4_501.0], "until the last noticed");
        one("node_killed", |run| run.back_ms = vec![2_001.0], "to return");
        one("node_killed", |run| run.wrong = vec!["echo".into()], "wrong: echo");
        one("node_killed", |run| run.stuck = vec!["never heard".into()], "never heard");
        // What only one in a hundred suffers is no p99.
        assert_eq!(unmet("node_killed", |run| run.back_ms = [vec![1.0; 99], vec![9e9]].concat()), [""; 0]);
        assert_eq!(unmet("all_brokers_stopped", |run| run.hit.lost = 1_000), [""; 0]);
        assert_eq!(unmet("node_frozen_long", |run| (run.late, run.returned) = (100, 100)), [""; 0]);
    }

    #[test]
    fn a_percentile_is_a_value_that_was_there() {
        assert_eq!(percentile(&[], 0.5), 0.0);
        assert_eq!(percentile(&[3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(percentile(&[3.0, 1.0, 2.0], 1.0), 3.0);
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((percentile(&hundred, 0.5), percentile(&hundred, 0.99)), (50.0, 99.0));
    }

    #[test]
    fn absences_are_told_from_moves() {
        let start = Instant::now();
        let turn = |millis, place: Result<usize, &str>| Turn {
            at: start + Duration::from_millis(millis),
            place: place.map_err(str::to_owned),
        };
        let struck = start + Duration::from_millis(100);
        let turns =
            [turn(0, Ok(0)), turn(150, Err("reset")), turn(400, Ok(1)), turn(500, Ok(2)), turn(900, Err("gone"))];
        let (absences, moved) = absences(&turns, struck);
        let millis = Duration::from_millis;
        assert_eq!(
            absences,
            [(millis(50), Some(millis(250)), "reset".to_owned()), (millis(800), None, "gone".to_owned())]
        );
        assert_eq!(moved, 1);
        assert_eq!(super::absences(&turns, start + millis(950)), (Vec::new(), 0));
    }

    #[test]
    fn a_line_sums_its_runs_up() {
        let mut line = Line::new(&FAULTS[0]);
        for lost in [1, 2] {
            let mut run = met();
            run.hit = Suffered { pairs: 1, lost, gaps_ms: vec![100.0 * lost as f64] };
            run.judge(&FAULTS[0].expect, Duration::ZERO);
            line.runs.push(run);
        }
        assert_eq!(line.bad(), 2);
        let words: Vec<String> = line.to_string().split_whitespace().map(str::to_owned).collect();
        assert_eq!(words[..9].join(" "), "baseline 2 2 0.0 100 ms 200 ms 1.5");
        line.runs[0].agree_ms = None;
        assert!(line.to_string().contains("never"));
    }
}
