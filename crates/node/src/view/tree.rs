//! The tree as people read it: one line an actor, drawn as a tree, with what an operator asks first. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::{ActorView, Style, ago, clean};

/// How the tree is drawn.
#[derive(Clone, Copy, Debug)]
pub struct TreeOptions {
    /// Colours.
    pub style: Style,
    /// The longest line, in characters.
    pub width: usize,
    /// Of more siblings than this, the calm ones are left out and counted.
    pub siblings: usize,
}

impl Default for TreeOptions {
    /// No colours, 160 characters, 32 siblings.
    fn default() -> Self {
        Self { style: Style::default(), width: 160, siblings: 32 }
    }
}

/// Less than this for the last column is not worth having: its heading.
const MIN_REASON: usize = 11;
/// Columns that are drawn however narrow the terminal is: who, and in what state.
const MIN_COLUMNS: usize = 2;
/// The longest name, with what is drawn before it.
const MAX_NAME: usize = 60;

/// An actor and where it stands among those that are drawn.
struct Row<'a> {
    name: String,
    /// `None`: it stands for siblings that were left out.
    actor: Option<&'a ActorView>,
}

/// Draws the tree. `actors` are in the order of the tree: each supervisor before its children.
#[must_use]
pub fn render(actors: &[ActorView], options: &TreeOptions) -> String {
    let mut children: BTreeMap<&str, Vec<&ActorView>> = BTreeMap::new();
    let known: std::collections::BTreeSet<&str> = actors.iter().map(|actor| actor.path.as_str()).collect();
    let mut tops = Vec::new();
    for actor in actors {
        match parent(&actor.path).filter(|parent| known.contains(parent)) {
            Some(parent) => children.entry(parent).or_default().push(actor),
            None => tops.push(actor),
        }
    }
    let mut rows = Vec::new();
    for top in tops {
        let name = if top.path.is_empty() { "roomcast" } else { &top.path };
        rows.push(Row { name: name.to_owned(), actor: Some(top) });
        descend(&top.path, "", &children, options, &mut rows);
    }
    table(&rows, options)
}

fn parent(path: &str) -> Option<&str> {
    if path.is_empty() { None } else { Some(path.rsplit_once('/').map_or("", |(parent, _)| parent)) }
}

fn descend<'a>(
    path: &str,
    before: &str,
    children: &BTreeMap<&str, Vec<&'a ActorView>>,
    options: &TreeOptions,
    rows: &mut Vec<Row<'a>>,
) {
    let Some(siblings) = children.get(path) else { return };
    let (shown, more) = choose(siblings, options.siblings);
    let last = shown.len() - usize::from(more == 0);
    for (place, child) in shown.iter().enumerate() {
        let (branch, below) = if place == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let name = child.path.rsplit('/').next().unwrap_or_default();
        rows.push(Row { name: format!("{before}{branch}{name}"), actor: Some(child) });
        descend(&child.path, &format!("{before}{below}"), children, options, rows);
    }
    if more > 0 {
        rows.push(Row { name: format!("{before}└─ … {more} more, all calm"), actor: None });
    }
}

/// Up to `most` siblings, the troubled ones before the calm ones, in their order; and how many were left out.
fn choose<'a>(siblings: &[&'a ActorView], most: usize) -> (Vec<&'a ActorView>, usize) {
    if siblings.len() <= most {
        return (siblings.to_vec(), 0);
    }
    let mut places: Vec<usize> = (0..siblings.len()).collect();
    places.sort_by_key(|place| (calm(siblings[*place]), *place));
    places.truncate(most);
    places.sort_unstable();
    let shown: Vec<_> = places.into_iter().map(|place| siblings[place]).collect();
    let more = siblings.len() - shown.len();
    (shown, more)
}

fn calm(actor: &ActorView) -> bool {
    actor.state == "running" && actor.restarts == 0 && actor.stuck_ms.is_none()
}

const HEADER: [&str; 7] = ["ACTOR", "STATE", "SINCE", "RESTARTS", "MAILBOX", "BACKOFF", "LAST REASON"];
/// Columns of numbers, aligned to the right.
const RIGHT: [bool; 7] = [false, false, true, true, true, true, false];

fn table(rows: &[Row<'_>], options: &TreeOptions) -> String {
    let style = options.style;
    let cells: Vec<[String; 7]> = rows.iter().map(cells).collect();
    let width = |column: usize| {
        let widest = cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        widest.max(HEADER[column].chars().count())
    };
    let widths: [usize; 7] = std::array::from_fn(width);
    let used: usize = widths[..6].iter().map(|width| width + 2).sum();
    let reason = options.width.saturating_sub(used);
    // Where not all columns fit, the last ones are left out: a line that wraps spoils all of them.
    let mut columns = HEADER.len() - usize::from(reason < MIN_REASON);
    while columns > MIN_COLUMNS
        && columns < HEADER.len()
        && widths[..columns].iter().map(|width| width + 2).sum::<usize>() - 2 > options.width
    {
        columns -= 1;
    }
    let mut out = String::new();
    let header = HEADER.map(ToOwned::to_owned);
    let mut line = |row: &[String; 7], paint: &dyn Fn(usize, &str) -> String| {
        let mut text = String::new();
        for (column, cell) in row.iter().enumerate().take(columns) {
            let cell = if column == 6 { clean(cell, reason) } else { cell.clone() };
            // Painted after it was measured: what paints has no width.
            let room = " ".repeat(if column == 6 { 0 } else { widths[column].saturating_sub(cell.chars().count()) });
            let cell = paint(column, &cell);
            let gap = if column == 0 { "" } else { "  " };
            // Writing to a string cannot fail.
            let _ = if RIGHT[column] { write!(text, "{gap}{room}{cell}") } else { write!(text, "{gap}{cell}{room}") };
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&header, &|_, cell| style.faint(cell));
    for (row, cells) in rows.iter().zip(&cells) {
        let Some(actor) = row.actor else {
            line(cells, &|_, cell| style.faint(cell));
            continue;
        };
        line(cells, &|column, cell| match column {
            0 if actor.kind == "supervisor" => style.strong(cell),
            1 if actor.stuck_ms.is_some() => style.bad(cell),
            1 => match actor.state.as_str() {
                "running" => style.good(cell),
                "down" => style.bad(cell),
                _ => style.doubtful(cell),
            },
            3 if actor.restarts > 0 => style.doubtful(cell),
            4 if actor.mailbox_depth > 0 => style.doubtful(cell),
            2 | 6 => style.faint(cell),
            _ => cell.to_owned(),
        });
    }
    out
}

fn cells(row: &Row<'_>) -> [String; 7] {
    let name = clean(&row.name, MAX_NAME);
    let Some(actor) = row.actor else {
        let mut cells: [String; 7] = Default::default();
        cells[0] = name;
        return cells;
    };
    let time = |milliseconds| ago(Duration::from_millis(milliseconds));
    let state = match actor.stuck_ms {
        Some(stuck) => format!("stuck {}", time(stuck)),
        None => clean(&actor.state, 12),
    };
    [
        name,
        state,
        time(actor.since_ms),
        actor.restarts.to_string(),
        actor.mailbox_depth.to_string(),
        actor.backoff_ms.map(time).unwrap_or_default(),
        actor.last_reason.clone().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(path: &str, kind: &str) -> ActorView {
        ActorView {
            path: path.into(),
            kind: kind.into(),
            state: "running".into(),
            restarts: 0,
            mailbox_depth: 0,
            since: "2026-01-01T00:00:00.000Z".into(),
            since_ms: 130_000,
            generation: 1,
            last_reason: None,
            backoff_ms: None,
            attempts: 0,
            stuck_ms: None,
        }
    }

    fn forest() -> Vec<ActorView> {
        let mut link = actor("bus/link", "worker");
        link.state = "restarting".into();
        (link.restarts, link.backoff_ms, link.last_reason) = (3, Some(250), Some("panicked: no\nbus".into()));
        let mut admin = actor("admin", "worker");
        admin.stuck_ms = Some(12_000);
        vec![actor("", "supervisor"), actor("config", "worker"), actor("bus", "supervisor"), link, admin]
    }

    #[test]
    fn the_tree_is_drawn_in_aligned_columns() {
        let expected = "\
ACTOR       STATE        SINCE  RESTARTS  MAILBOX  BACKOFF  LAST REASON
roomcast    running     2m 10s         0        0
├─ config   running     2m 10s         0        0
├─ bus      running     2m 10s         0        0
│  └─ link  restarting  2m 10s         3        0    250ms  panicked: no bus
└─ admin    stuck 12s   2m 10s         0        0
";
        assert_eq!(render(&forest(), &TreeOptions::default()), expected);
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let style = Style { colour: true };
        let coloured = render(&forest(), &TreeOptions { style, ..TreeOptions::default() });
        assert!(coloured.contains("\x1b[32mrunning\x1b[0m") && coloured.contains("\x1b[31;1mstuck 12s\x1b[0m"));
        let mut plain = String::new();
        let mut rest = coloured.as_str();
        while let Some((before, after)) = rest.split_once('\x1b') {
            plain.push_str(before);
            rest = after.split_once('m').unwrap().1;
        }
        plain.push_str(rest);
        let trimmed = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        assert_eq!(trimmed(&plain), trimmed(&render(&forest(), &TreeOptions::default())));
    }

    #[test]
    fn of_many_siblings_the_troubled_ones_are_shown_and_the_rest_is_counted() {
        let mut actors = vec![actor("", "supervisor"), actor("rooms", "supervisor")];
        actors.extend((0..100).map(|room| actor(&format!("rooms/r{room}"), "supervisor")));
        actors[80].restarts = 1;
        let text = render(&actors, &TreeOptions { siblings: 3, ..TreeOptions::default() });
        let names: Vec<_> = text.lines().map(|line| line.split("  r").next().unwrap().trim_end()).collect();
        assert_eq!(text.lines().count(), 1 + 2 + 3 + 1, "{text}");
        assert!(text.contains("   ├─ r0 ") && text.contains("   ├─ r1 ") && text.contains("   ├─ r78 "), "{text}");
        assert_eq!(names.last(), Some(&"   └─ … 97 more, all calm"));
    }

    #[test]
    fn a_subtree_stands_alone() {
        let actors = [actor("rooms/a%20b", "supervisor"), actor("rooms/a%20b/room", "worker")];
        let text = render(&actors, &TreeOptions::default());
        assert!(text.contains("\nrooms/a%20b ") && text.contains("\n└─ room "), "{text}");
    }

    #[test]
    fn a_long_reason_is_cut_to_the_line() {
        let mut long = actor("x", "worker");
        long.last_reason = Some("y".repeat(1000));
        let text = render(&[long], &TreeOptions { width: 100, ..TreeOptions::default() });
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn a_narrow_terminal_gets_fewer_columns_and_no_line_that_wraps() {
        // The six columns before the last take 60 characters with the gap after them, and 58 without it.
        for (width, headings) in [(80, 7), (71, 7), (70, 6), (58, 6), (57, 5), (49, 5), (30, 3), (1, 2)] {
            let text = render(&forest(), &TreeOptions { width, ..TreeOptions::default() });
            let header = text.lines().next().unwrap();
            assert_eq!(HEADER.iter().filter(|heading| header.contains(**heading)).count(), headings, "{width}\n{text}");
            // Two columns are always drawn.
            assert!(text.lines().all(|line| line.chars().count() <= width.max(23)), "{width}\n{text}");
        }
    }
}
