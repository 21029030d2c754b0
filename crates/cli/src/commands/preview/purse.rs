//! The budgets that bind a run before it is started, and whether what it will use fits what is left of them.

use serde_json::{Value as Json, json};
use windlass_core::budget::Meter;
use windlass_core::escrow::ENVIRONMENT;
use windlass_core::ids::Name;
use windlass_ports::store::escrow::{self, BudgetRow};

use crate::app::App;
use crate::exit::Problem;

/// Whose run it would be, and what it may call.
pub(super) struct Purse {
    pub(super) tenant: String,
    pub(super) user: Option<String>,
    pub(super) tools: Vec<Name>,
}

/// What a run will use of a meter: what most runs stay below, and the most; none where nobody knows.
pub(super) struct Use {
    pub(super) expected: Option<u64>,
    pub(super) most: Option<u64>,
}

impl Purse {
    /// The budgets that apply, with what is left and whether the run fits.
    pub(super) async fn budgets(&self, app: &App, uses: impl Fn(Meter) -> Use) -> Result<Vec<Json>, Problem> {
        let Some(store) = app.store_to_read().await? else { return Ok(Vec::new()) };
        let rows = escrow::budgets(&*store, app.now()).await?;
        let lines = |row: &BudgetRow| {
            let is_tool = row.scope.starts_with("tool:");
            let caps = row.known.budget.caps.iter().filter(|(meter, _)| !is_tool || **meter == Meter::ToolCalls);
            caps.map(|(meter, cap)| told(row, *meter, *cap, &uses(*meter))).collect::<Vec<_>>()
        };
        Ok(rows.iter().filter(|row| self.is_bound(&row.scope)).flat_map(lines).collect())
    }

    fn is_bound(&self, scope: &str) -> bool {
        let tenant = windlass_core::escrow::escaped(&self.tenant);
        scope == ENVIRONMENT
            || scope == format!("tenant:{tenant}")
            || self.user.as_ref().is_some_and(|user| scope == format!("user:{tenant}/{user}"))
            || self.tools.iter().any(|tool| scope == format!("tool:{tenant}/{tool}"))
    }
}

fn told(row: &BudgetRow, meter: Meter, cap: u64, uses: &Use) -> Json {
    let left = row.account.left(meter, cap);
    let fits = |amount: Option<u64>| amount.map(|amount| amount <= left);
    json!({
        "scope": &*row.scope,
        "meter": meter.as_str(),
        "cap": cap,
        "left": left,
        "period": row.known.budget.period.as_str(),
        "beyond": row.known.budget.beyond.as_str(),
        "expected": uses.expected,
        "expected_fits": fits(uses.expected),
        "most": uses.most,
        "most_fits": fits(uses.most),
    })
}

/// One budget as a line of text.
pub(super) fn line(budget: &Json) -> String {
    let word = |key: &str| budget[key].as_str().unwrap_or_default().to_owned();
    let says = match (budget["expected_fits"].as_bool(), budget["most_fits"].as_bool()) {
        (_, Some(true)) => "the run fits in any case",
        (Some(true), _) => "what is expected fits",
        (Some(false), _) => "what is expected does not fit",
        (None, Some(false)) => "the most that it may use does not fit",
        (None, None) => "nobody knows whether it fits",
    };
    format!("  budget       {}: {} of {} {} left; {says}", word("scope"), budget["left"], budget["cap"], word("meter"))
}
