//! The process's log: one subscriber, whose filter the configuration actor may change while the node runs.

use std::io::IsTerminal;

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::{Layer, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::LogControl;
use crate::config::{LogFormat, TelemetrySettings};

/// Installs the subscriber and gives back what changes its filter.
///
/// # Errors
/// When the filter is not one.
pub(super) fn install(settings: &TelemetrySettings) -> Result<LogControl, ParseError> {
    let (filter, handle) = reload::Layer::new(filter_of(&settings.log)?);
    let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match settings.format {
        LogFormat::Json => stderr.json().with_target(false).boxed(),
        LogFormat::Text => stderr.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    Ok(LogControl::new(move |text| {
        let filter = filter_of(text).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    }))
}

/// The bus says itself what happens to it; its library's account of the same is for those who ask for it.
fn filter_of(text: &str) -> Result<EnvFilter, ParseError> {
    const LIBRARY: &str = "async_nats";
    let filter = EnvFilter::try_new(text)?;
    match format!("{LIBRARY}=off").parse() {
        Ok(quiet) if !text.contains(LIBRARY) => Ok(filter.add_directive(quiet)),
        _ => Ok(filter),
    }
}
