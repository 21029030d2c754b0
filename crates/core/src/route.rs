//! Routes of model calls: the links of a fallback chain as a fact, and the choice among them as it is journaled.
//!
//! Which links there are and which of them can be used is known outside; which one an attempt takes is decided here.
//! Every link is an attempt of its own, so what each may cost is reserved before it and settled after it.

pub mod table;

use serde::{Deserialize, Serialize};

use crate::failure::{Code, Failure};
use crate::ids::Name;
use crate::input::{Quote, Traits};
use crate::machine::ModelSettings;
use crate::policy::Question;

/// The ways in which an agent's model calls can be made, first choice first. A fact.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// Its name in the catalog.
    pub name: Name,
    /// Its links; never none.
    pub links: Vec<Link>,
    /// How they are chosen beside their order.
    pub rules: table::Rules,
}

/// The tier that a call is to be made at, and why. A rule that no link of the chain can follow at present gives way to
/// the order of the links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The tier; none for any.
    pub tier: Option<Name>,
    /// The row of the decision table that says so.
    pub row: Option<Name>,
    /// Whether this is a step to a better tier after a failure.
    pub escalated: bool,
}

/// One way. A fact.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Its name in the catalog.
    pub name: Name,
    /// The tier of its model; empty when it has none.
    pub tier: Name,
    /// How its calls are made.
    pub settings: ModelSettings,
    /// Failures after which the next link is tried.
    pub on: Vec<Code>,
    /// The price of its model, when the price book has one.
    pub quote: Option<Quote>,
    /// What else is known of it.
    pub traits: Traits,
    /// Why it cannot be used at present; none when it can.
    pub shut: Option<Name>,
    /// Why it stands for another model; none when it does not.
    pub instead: Option<Name>,
}

/// The link that an attempt takes, with what decided it. Journaled with the attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The chain.
    pub chain: Name,
    /// The link's place in it, from 0.
    pub link: u32,
    /// The link's name.
    pub name: Name,
    /// The tier of its model; empty when it has none.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub tier: Name,
    /// Why this one: `first`, or what happened to the one before.
    pub reason: Name,
    /// The row of the chain's decision table that said the tier; none when none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<Name>,
    /// Whether this is a step to a better tier after a failure; it counts against the most of them in a run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub escalated: bool,
    /// Every link of the chain, and why it was passed over.
    pub candidates: Vec<Candidate>,
    /// Who put the chain in the place of what the document names; none when nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Name>,
    /// The links that attempts of the same call took before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<Name>,
    /// How the call is made.
    pub settings: ModelSettings,
}

/// A link that could have been taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name.
    pub name: Name,
    /// Why it was not taken; none for the one that was, and for those behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed: Option<Name>,
    /// Whether the policy forbids its model to this call.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub denied: bool,
}

impl Choice {
    /// The links whose models the policy forbids.
    #[must_use]
    pub fn denied(&self) -> Vec<Name> {
        self.candidates.iter().filter(|link| link.denied).map(|link| link.name.clone()).collect()
    }

    /// The same choice for a call that took another one before.
    #[must_use]
    pub fn after(mut self, before: Option<&Self>) -> Self {
        if let Some(before) = before {
            self.tried.clone_from(&before.tried);
            if !self.tried.contains(&before.name) {
                self.tried.push(before.name.clone());
            }
        }
        self
    }
}

impl Chain {
    /// The first link from `from` on that can be used. `denied` says why the policy forbids one. Where none can be used
    /// at present and `last_resort` is set, the first that is not forbidden: its adapter says when it can be used again.
    /// With `saving`, what of money or tokens is nearly used up, links that cost more than the cheapest usable one are passed
    /// over.
    #[must_use]
    pub fn choose(
        &self,
        from: u32,
        reason: &str,
        last_resort: bool,
        saving: Option<&Name>,
        wanted: &Wanted,
        denied: impl Fn(&Link) -> Option<Name>,
    ) -> Option<Choice> {
        let mut passed: Vec<Option<Name>> = self
            .links
            .iter()
            .enumerate()
            .map(|(at, link)| {
                let tried = (at < from as usize).then(|| "tried before".into());
                denied(link).or(tried).or_else(|| link.shut.clone())
            })
            .collect();
        self.pass_tiers(&mut passed, wanted);
        if let Some(what) = saving {
            self.pass_dear(&mut passed, what);
        }
        let usable = passed.iter().position(Option::is_none);
        let forced = || {
            let allowed = |(at, link): &(usize, &Link)| *at >= from as usize && denied(link).is_none();
            self.links.iter().enumerate().find(allowed).map(|(at, _)| at)
        };
        let at = usable.or_else(|| last_resort.then(forced).flatten())?;
        let link = self.links.get(at)?;
        let candidates = self.links.iter().zip(passed).enumerate();
        let candidates = candidates.map(|(place, (link, passed))| Candidate {
            name: link.name.clone(),
            passed: passed.filter(|_| place != at),
            denied: denied(link).is_some(),
        });
        Some(Choice {
            chain: self.name.clone(),
            link: u32::try_from(at).unwrap_or(u32::MAX),
            name: link.name.clone(),
            tier: link.tier.clone(),
            reason: link.instead.as_ref().map_or_else(|| reason.into(), |why| format!("{reason}; {why}").into()),
            row: wanted.row.clone(),
            escalated: wanted.escalated && wanted.tier.as_ref().is_none_or(|tier| *tier == link.tier),
            candidates: candidates.collect(),
            by: None,
            tried: Vec::new(),
            settings: link.settings.clone(),
        })
    }

    /// Passes over every usable link of another tier than the wanted one, where one of that tier can be used.
    fn pass_tiers(&self, passed: &mut [Option<Name>], wanted: &Wanted) {
        let Some(tier) = &wanted.tier else { return };
        if !self.links.iter().zip(passed.iter()).any(|(link, passed)| passed.is_none() && link.tier == *tier) {
            return;
        }
        let why: Name = match &wanted.row {
            Some(row) => format!("row `{row}` asks for the tier `{tier}`").into(),
            None => format!("the tier `{tier}` is asked for").into(),
        };
        for (link, passed) in self.links.iter().zip(passed.iter_mut()) {
            if link.tier != *tier {
                passed.get_or_insert_with(|| why.clone());
            }
        }
    }

    /// The rule and the place from which on a call that failed so at a link is made at a better tier; none when no rule
    /// says so, or no link behind it has that tier.
    #[must_use]
    pub fn escalation(&self, at: u32, code: Code) -> Option<(&table::Escalation, u32)> {
        let rule = self.rules.about(code)?;
        self.links.get(at as usize).filter(|link| link.tier != rule.to)?;
        let behind = self.links.iter().skip(at as usize + 1).any(|other| other.tier == rule.to);
        behind.then_some((rule, at + 1))
    }

    /// Passes over every usable link that costs more than the cheapest usable one.
    fn pass_dear(&self, passed: &mut [Option<Name>], what: &Name) {
        let price = |link: &Link| link.quote.as_ref().map(|quote| u128::from(quote.input) + u128::from(quote.output));
        let usable = self.links.iter().zip(passed.iter()).filter(|(_, passed)| passed.is_none());
        let Some(least) = usable.filter_map(|(link, _)| price(link)).min() else { return };
        for (link, passed) in self.links.iter().zip(passed.iter_mut()) {
            if passed.is_none() && price(link).is_some_and(|price| price > least) {
                *passed = Some(format!("{what} is nearly used up").into());
            }
        }
    }

    /// The questions that the links put to the policy when an agent calls by them.
    pub fn questions(&self, agent: &Name) -> impl Iterator<Item = Question> {
        self.links.iter().map(|link| Question::CallModel { agent: agent.clone(), model: link.settings.model.clone() })
    }

    /// The place after a link whose call failed so; none when the failure is not one that leads on.
    #[must_use]
    pub fn after(&self, choice: &Choice, failure: &Failure) -> Option<u32> {
        let link = self.links.get(choice.link as usize).filter(|link| link.name == choice.name)?;
        let more = (choice.link as usize) + 1 < self.links.len();
        (more && link.on.contains(&failure.code)).then(|| choice.link + 1)
    }

    /// The link that was chosen, as it is known at present.
    #[must_use]
    pub fn link(&self, choice: &Choice) -> Option<&Link> {
        self.links.get(choice.link as usize).filter(|link| link.name == choice.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn link(name: &str, shut: Option<&str>) -> Link {
        let settings = ModelSettings {
            provider: "p".into(),
            model: name.into(),
            base_url: None,
            key: None,
            max_tokens: None,
            stream: false,
            params: Value::Null,
            timeout_ms: 1,
        };
        let on = vec![Code::ProviderUnavailable];
        Link {
            name: name.into(),
            tier: "".into(),
            settings,
            on,
            quote: None,
            traits: Traits::default(),
            shut: shut.map(Into::into),
            instead: None,
        }
    }

    fn chain(links: &[(&str, Option<&str>)]) -> Chain {
        Chain {
            name: "c".into(),
            links: links.iter().map(|(name, shut)| link(name, *shut)).collect(),
            rules: table::Rules::default(),
        }
    }

    #[test]
    fn the_first_usable_link_is_taken_and_the_others_say_why_not() {
        let chain = chain(&[("a", Some("its breaker is open")), ("b", None), ("c", None)]);
        let choice = chain.choose(0, "first", true, None, &Wanted::default(), |_| None).expect("a link");
        assert_eq!((&*choice.name, choice.link), ("b", 1));
        let passed: Vec<_> = choice.candidates.iter().map(|c| c.passed.as_deref()).collect();
        assert_eq!(passed, [Some("its breaker is open"), None, None]);
        let denied = |link: &Link| (&*link.name == "b").then(|| "rule r".into());
        assert_eq!(chain.choose(0, "first", true, None, &Wanted::default(), denied).map(|c| c.link), Some(2));
    }

    #[test]
    fn where_all_are_shut_the_first_allowed_one_is_asked_only_as_a_last_resort() {
        let chain = chain(&[("a", Some("open")), ("b", Some("open"))]);
        assert_eq!(chain.choose(0, "first", true, None, &Wanted::default(), |_| None).map(|c| c.link), Some(0));
        assert_eq!(chain.choose(0, "first", false, None, &Wanted::default(), |_| None), None);
        assert_eq!(
            chain.choose(0, "first", true, None, &Wanted::default(), |_| Some("rule r".into())),
            None,
            "what is forbidden stays so"
        );
    }

    #[test]
    fn close_to_the_end_of_a_budget_the_cheapest_usable_link_is_taken() {
        let mut chain = chain(&[("dear", None), ("cheapest", Some("open")), ("cheap", None), ("unknown", None)]);
        for (link, price) in chain.links.iter_mut().zip([9, 1, 3]) {
            link.quote =
                Some(Quote { input: price, output: price, version: "1".into(), beyond: crate::budget::Amounts::ZERO });
        }
        let scope: Name = "the budget of `tenant:acme`".into();
        let choice = chain.choose(0, "first", true, Some(&scope), &Wanted::default(), |_| None).expect("a link");
        let passed: Vec<_> = choice.candidates.iter().map(|c| c.passed.as_deref()).collect();
        let dear = Some("the budget of `tenant:acme` is nearly used up");
        assert_eq!((choice.link, passed), (2, vec![dear, Some("open"), None, None]));
        let none = chain.choose(0, "first", true, Some(&scope), &Wanted::default(), |link| {
            (&*link.name != "dear").then(|| "rule r".into())
        });
        assert_eq!(none.map(|choice| choice.link), Some(0), "where it is the only one, it is the cheapest");
    }

    #[test]
    fn a_tier_that_is_asked_for_goes_before_the_order_while_it_can_be_used() {
        let mut chain = chain(&[("a", None), ("b", None), ("c", None)]);
        for (link, tier) in chain.links.iter_mut().zip(["fast", "strong", "fast"]) {
            link.tier = tier.into();
        }
        let wanted = Wanted { tier: Some("strong".into()), row: Some("hard".into()), escalated: false };
        let choice = chain.choose(0, "table", true, None, &wanted, |_| None).expect("a link");
        let passed: Vec<_> = choice.candidates.iter().map(|c| c.passed.as_deref()).collect();
        let why = Some("row `hard` asks for the tier `strong`");
        assert_eq!((&*choice.name, choice.row.as_deref(), passed), ("b", Some("hard"), vec![why, None, why]));
        chain.links[1].shut = Some("open".into());
        assert_eq!(chain.choose(0, "table", true, None, &wanted, |_| None).map(|c| c.link), Some(0));
        let rule = table::Escalation { on: vec![Code::ProviderBadOutput], to: "strong".into(), at_most: 1 };
        chain.rules.escalation = Some(rule);
        let from = |at, code| chain.escalation(at, code).map(|(_, from)| from);
        assert_eq!((from(0, Code::ProviderBadOutput), from(0, Code::ProviderAuth)), (Some(1), None));
        assert_eq!((from(1, Code::ProviderBadOutput), from(2, Code::ProviderBadOutput)), (None, None));
    }

    #[test]
    fn only_listed_failures_lead_on() {
        let chain = chain(&[("a", None), ("b", None)]);
        let choice = chain.choose(0, "first", true, None, &Wanted::default(), |_| None).expect("a link");
        let after = |code| chain.after(&choice, &Failure::new(code, "x"));
        assert_eq!(after(Code::ProviderUnavailable), Some(1));
        assert_eq!(after(Code::ProviderAuth), None);
        let last = chain.choose(1, "after", true, None, &Wanted::default(), |_| None).expect("a link");
        assert_eq!(chain.after(&last, &Failure::new(Code::ProviderUnavailable, "x")), None);
    }
}
