//! `windlass graph`: a machine as a drawing.

use serde_json::json;
use windlass::wire::Wiring;

use crate::app::App;
use crate::args::{self, GraphFormat};
use crate::documents;
use crate::drawing::{self, Drawing};
use crate::exit::{Exit, Problem};
use crate::session;

/// Draws a machine. The text is the payload; with `--json` it comes with the states and ways that it shows.
///
/// # Errors
/// A document that is not valid.
pub(crate) fn graph(app: &App, args: &args::Graph) -> Result<Exit, Problem> {
    let folder = documents::folder(app, &args.machine);
    let wiring = Wiring { needs_secrets: false, ..session::wiring(app, &folder) };
    let catalog = wiring.catalog().map_err(session::setting)?;
    let loaded = documents::read_to_run(app, &args.machine, &catalog)?;
    let machine = loaded.program.machines.get(&loaded.program.entry);
    let drawing = Drawing::of(machine.ok_or_else(|| Problem::bug("the program has no machine"))?);
    let text = match args.format {
        GraphFormat::Svg => drawing::svg(&drawing),
        GraphFormat::Mermaid => drawing::mermaid(&drawing),
        GraphFormat::Dot => drawing::dot(&drawing),
    };
    if app.global.json {
        app.output.document(&json!({ "drawing": drawing, "text": text }));
    } else {
        app.output.text(&text);
    }
    Ok(Exit::Ok)
}
