//! `roomcast top`: the whole screen, once a second. What is drawn is decided by `screen`, which is pure.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, queue, style as write, terminal};
use futures_util::StreamExt;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::client::{Client, Trouble};
use super::follow::{Feed, line};
use super::print::rooms_text;
use super::style;
use crate::view::{Figures, NodeView, RoomsView, Style, ago, clean, count};

/// Between two looks at the node.
const LOOK: Duration = Duration::from_secs(1);
/// Events that are kept for the lower part of the screen.
const EVENTS: usize = 50;
/// What happens to actors and settings; joins and leaves would drown it.
const TYPES: [&str; 9] =
    ["crashed", "restarted", "start_failed", "gave_up", "abandoned", "stuck", "unstuck", "reload", "draining"];

/// What is known of the node.
#[derive(Default)]
struct Known {
    node: Option<NodeView>,
    rooms: Option<RoomsView>,
    /// The newest scrape, the one before, and the seconds between them.
    figures: Option<(Figures, Figures, f64)>,
    events: VecDeque<String>,
    trouble: Option<String>,
}

/// One look at the node.
struct Look {
    node: NodeView,
    rooms: RoomsView,
    figures: Figures,
    at: Instant,
}

pub(super) async fn run(client: &Client) -> Result<(), Trouble> {
    if !std::io::stdout().is_terminal() {
        let instead = "`roomcast tree`, `roomcast rooms --json` and /metrics are for programs";
        return Err(Trouble::Usage(format!("top needs a terminal; {instead}")));
    }
    // The first look before the screen is taken: when nobody answers, that is said as everywhere else.
    let mut last = look(client).await?;
    let types = TYPES.map(ToOwned::to_owned);
    let mut feed = Some(Feed::open(client, &types, None).await?);
    let _screen = Screen::take().map_err(|error| Trouble::Usage(format!("this terminal cannot be used: {error}")))?;
    let style = style();
    let mut known = Known { node: Some(last.node.clone()), rooms: Some(last.rooms.clone()), ..Known::default() };
    let mut keys = EventStream::new();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        draw(&known, style)?;
        tokio::select! {
            key = keys.next() => match key {
                Some(Ok(Event::Key(key))) if quits(&key) => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(()),
            },
            event = next_event(&mut feed) => match event {
                Ok(data) => {
                    known.events.truncate(EVENTS - 1);
                    known.events.push_front(line(&data, style));
                }
                Err(_) => feed = None,
            },
            _ = looks.tick() => match look(client).await {
                Ok(new) => {
                    if feed.is_none() {
                        feed = Feed::open(client, &types, None).await.ok();
                    }
                    let seconds = (new.at - last.at).as_secs_f64();
                    (known.node, known.rooms, known.trouble) = (Some(new.node.clone()), Some(new.rooms.clone()), None);
                    let before = std::mem::replace(&mut last, new);
                    known.figures = Some((last.figures.clone(), before.figures, seconds));
                }
                Err(trouble) => known.trouble = trouble.to_string().lines().next().map(ToOwned::to_owned),
            },
        }
    }
}

async fn next_event(feed: &mut Option<Feed<'_>>) -> Result<String, Trouble> {
    match feed {
        Some(feed) => feed.next().await,
        // Opened again with the next look at the node.
        None => std::future::pending().await,
    }
}

fn quits(key: &KeyEvent) -> bool {
    let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

async fn look(client: &Client) -> Result<Look, Trouble> {
    let node = client.get("/node").await?;
    let rooms = client.get("/rooms?limit=100").await?;
    let figures = Figures::parse(&client.get_text("/metrics").await?);
    Ok(Look { node, rooms, figures, at: Instant::now() })
}

/// The screen, given back in whatever way this ends.
struct Screen;

impl Screen {
    fn take() -> std::io::Result<Self> {
        terminal::enable_raw_mode()?;
        let screen = Self;
        execute!(std::io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = execute!(std::io::stdout(), cursor::Show, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

fn draw(known: &Known, style: Style) -> Result<(), Trouble> {
    let (columns, rows) = terminal::size().unwrap_or((80, 24));
    let lines = screen(known, style, usize::from(columns), usize::from(rows));
    let drawn = || {
        let mut out = std::io::stdout().lock();
        queue!(out, cursor::MoveTo(0, 0))?;
        for (place, line) in lines.iter().enumerate() {
            if place > 0 {
                queue!(out, write::Print("\r\n"))?;
            }
            queue!(out, write::Print(line), Clear(ClearType::UntilNewLine))?;
        }
        queue!(out, Clear(ClearType::FromCursorDown))?;
        out.flush()
    };
    drawn().map_err(Trouble::from_print)
}

/// What is drawn: at most `rows` lines.
fn screen(known: &Known, style: Style, columns: usize, rows: usize) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(node) = &known.node {
        let state = format!("{}, up {}", clean(&node.state, 40), ago(Duration::from_millis(node.uptime_ms)));
        let title = format!("{}  {}  ", style.strong(&format!("roomcast {}", clean(&node.name, 40))), state);
        lines.push(match &known.trouble {
            Some(trouble) => title + &style.bad(&clean(trouble, columns.saturating_sub(20))),
            None => title + &style.faint("q ends"),
        });
        lines.push(format!(
            "connections {}   rooms {}   members {}   settings number {}",
            node.connections, node.rooms, node.members, node.config_generation
        ));
    }
    if let Some((now, before, seconds)) = &known.figures {
        lines.extend(rates(now, before, *seconds, style));
    }
    lines.push(String::new());
    let events = known.events.len().min(rows / 3);
    if let Some(rooms) = &known.rooms {
        let room = rows.saturating_sub(lines.len() + events + 2);
        let text = rooms_text(rooms, style);
        lines.extend(text.lines().filter(|line| !line.starts_with('…')).take(room).map(ToOwned::to_owned));
    }
    if events > 0 {
        lines.push(String::new());
        lines.extend(known.events.iter().take(events).map(|event| event.trim_end().to_owned()));
    }
    lines.truncate(rows);
    // A line with colours has more characters than columns; cutting it could cut an escape sequence.
    if !style.colour {
        lines = lines.iter().map(|line| clean(line, columns)).collect();
    }
    lines
}

fn rates(now: &Figures, before: &Figures, seconds: f64, style: Style) -> [String; 3] {
    let all = |name: &str| now.sum(name, None);
    // A node that has begun anew counts from zero.
    let rate = |name: &str| ((all(name) - before.sum(name, None)).max(0.0) / seconds.max(0.001)).round();
    let each = |name: &str| count(rate(name));
    let drops = format!("drops {}/s", each("roomcast_drops_total"));
    let drops = if rate("roomcast_drops_total") > 0.0 { style.bad(&drops) } else { drops };
    let state = |name: &str| now.sum("roomcast_actors", Some(&format!("state=\"{name}\"")));
    let (running, down) = (state("running"), state("restarting") + state("starting") + state("down"));
    let not_running = format!("{} not running", count(down));
    let not_running = if down > 0.0 { style.doubtful(&not_running) } else { not_running };
    let recovery = now.quantile("roomcast_actor_recovery_seconds", 0.99);
    let recovery = recovery.map_or_else(|| "-".to_owned(), |seconds| format!("≤ {} ms", seconds * 1000.0));
    [
        format!(
            "in {} packets/s {}B/s   out {} packets/s {}B/s   {drops}   waiting {}B",
            each("roomcast_packets_in_total"),
            each("roomcast_bytes_in_total"),
            each("roomcast_packets_out_total"),
            each("roomcast_bytes_out_total"),
            count(all("roomcast_buffered_bytes")),
        ),
        format!(
            "actors {} running, {not_running}   mailboxes {}   p99 of recovery {recovery}",
            count(running),
            count(all("roomcast_mailbox_depth")),
        ),
        format!(
            "restarts {} (+{}/s)   supervisors that gave up {}   settings refused {}",
            count(all("roomcast_actor_restarts_total")),
            each("roomcast_actor_restarts_total"),
            count(all("roomcast_escalations_total")),
            count(all("roomcast_config_rejections_total")),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::RoomView;

    fn known() -> Known {
        let scrape = |packets: u32| {
            Figures::parse(&format!(
                "roomcast_packets_in_total{{class=\"audio\"}} {packets}\nroomcast_actors{{state=\"running\"}} 20\n\
                 roomcast_actors{{state=\"restarting\"}} 1\nroomcast_actor_restarts_total{{supervisor=\"rooms\"}} 3\n"
            ))
        };
        let room = |place: usize| RoomView {
            room: format!("r{place}"),
            path: String::new(),
            members: 5,
            generation: 1,
            mailbox_depth: 0,
            queued_packets: 0,
            queued_bytes: 0,
        };
        Known {
            node: Some(NodeView {
                name: "n".into(),
                version: "1".into(),
                state: "ready".into(),
                uptime_ms: 130_000,
                connections: 100,
                rooms: 20,
                members: 100,
                config_generation: 2,
                chaos: false,
            }),
            rooms: Some(RoomsView { total: 20, rooms: (0..20).map(room).collect() }),
            figures: Some((scrape(9_000), scrape(1_000), 2.0)),
            events: (0..30).map(|event| format!("event {event}\n")).collect(),
            trouble: None,
        }
    }

    #[test]
    fn the_screen_shows_rates_rooms_and_events_and_never_more_than_fits() {
        for rows in 1..60 {
            let lines = screen(&known(), Style::default(), 100, rows);
            assert!(lines.len() <= rows);
            assert!(lines.iter().all(|line| line.chars().count() <= 100 && !line.contains('\n')), "{lines:#?}");
        }
        let lines = screen(&known(), Style::default(), 100, 40);
        assert_eq!(lines[0], "roomcast n  ready, up 2m 10s  q ends");
        assert!(lines[2].starts_with("in 4.00k packets/s 0B/s "), "{}", lines[2]);
        assert!(lines[3].starts_with("actors 20 running, 1 not running "), "{}", lines[3]);
        assert!(lines[4].starts_with("restarts 3 (+0/s) "), "{}", lines[4]);
        let lines = screen(&known(), Style::default(), 100, 60);
        assert!(lines.iter().any(|line| line.starts_with("r19 ")) && lines.iter().any(|line| line == "event 0"));
    }

    #[test]
    fn trouble_is_shown_and_what_was_known_stays() {
        let mut known = known();
        known.trouble = Some("nobody answers at x".into());
        let lines = screen(&known, Style::default(), 100, 40);
        assert!(lines[0].ends_with("nobody answers at x"), "{}", lines[0]);
        assert!(lines.iter().any(|line| line.starts_with("r0 ")));
    }
}
