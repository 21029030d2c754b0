//! Searches texts for many hidden values at once: one pass over a text, however many there are.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::Leaf;
use super::needles::{ANYWHERE_BYTES_MIN, Needles, Role};
use crate::ids::Name;

/// Bytes of a needle that the automaton knows; the rest is compared where those stand. It bounds what the automaton holds,
/// which is many times the bytes that it knows.
const ANCHOR_BYTES_MAX: usize = 24;

/// A text that is looked for, and for which values of the list.
struct Needle {
    text: Box<str>,
    owners: Vec<(u32, Role)>,
}

impl Needle {
    /// Its bytes from a place on.
    fn rest(&self, from: usize) -> &[u8] {
        &self.text.as_bytes()[from..]
    }

    fn is(&self, role: Role) -> bool {
        self.owners.iter().any(|(_, owned)| *owned == role)
    }
}

/// Finds the values of one stretch of a list.
pub(super) struct Finder {
    /// Which of the list.
    stretch: Range<usize>,
    /// Knows the beginnings of needles.
    automaton: AhoCorasick,
    /// Of each beginning the needles that have it.
    groups: Vec<Range<usize>>,
    /// In the order of their bytes.
    needles: Vec<Needle>,
    /// The longest one.
    longest_bytes: usize,
    keyed: BTreeMap<Name, BTreeSet<Box<str>>>,
    numbers: BTreeSet<Box<str>>,
}

/// What is not shown of a text, as places in it: in any order, and over one another.
#[derive(Default)]
pub(super) struct Places {
    /// Found.
    pub found: Vec<Range<usize>>,
    /// Found where they are whole words.
    pub words: Vec<Range<usize>>,
}

/// The finders of a list, after those of its beginning: each is at least twice as large as the one after it, so that a list
/// that grows one by one is not read from its beginning each time.
pub(super) fn extended(earlier: &[std::sync::Arc<Finder>], list: &[Leaf]) -> Vec<std::sync::Arc<Finder>> {
    let mut finders = earlier.to_vec();
    let mut from = finders.last().map_or(0, |last| last.stretch.end);
    if from == list.len() {
        return finders;
    }
    while let Some(last) = finders.pop_if(|last| last.stretch.len() <= list.len() - from) {
        from = last.stretch.start;
    }
    finders.push(std::sync::Arc::new(Finder::new(list, from)));
    finders
}

impl Finder {
    /// Finds what stands in a list from a place on.
    fn new(list: &[Leaf], from: usize) -> Self {
        let mut owners: BTreeMap<String, Vec<(u32, Role)>> = BTreeMap::new();
        let mut keyed: BTreeMap<Name, BTreeSet<Box<str>>> = BTreeMap::new();
        let mut numbers = BTreeSet::new();
        for (at, leaf) in (0..).zip(&list[from..]) {
            let needles = Needles::of(leaf);
            for (text, role) in needles.texts {
                owners.entry(text).or_default().push((at, role));
            }
            let under = keyed.entry(leaf.key.clone()).or_default();
            under.extend(needles.keyed.into_iter().map(Into::into));
            numbers.extend(needles.numbers.into_iter().map(Into::into));
        }
        let needles: Vec<Needle> =
            owners.into_iter().map(|(text, owners)| Needle { text: text.into(), owners }).collect();
        let (anchors, groups) = anchored(&needles);
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(&anchors)
            .expect("the bound of hidden bytes keeps an automaton far below what it can number");
        let longest_bytes = needles.iter().map(|needle| needle.text.len()).max().unwrap_or(0);
        Self { stretch: from..list.len(), automaton, groups, needles, longest_bytes, keyed, numbers }
    }

    /// Whether this is one of its values, under this key.
    pub(super) fn is_keyed(&self, key: &str, text: &str) -> bool {
        self.keyed.get(key).is_some_and(|texts| texts.contains(text))
    }

    /// Whether a number that is spelled so is one of its values, under whatever key.
    pub(super) fn is_number(&self, text: &str) -> bool {
        self.numbers.contains(text)
    }

    /// Adds the places of a text that are not shown.
    pub(super) fn places(&self, text: &str, places: &mut Places) {
        self.each(text.as_bytes(), |needle, place| {
            if needle.is(Role::Anywhere) {
                add(&mut places.found, place);
            } else if needle.is(Role::Word) {
                places.words.push(place);
            }
        });
    }

    /// Adds the places of those of its values that may stand in a text, in the list.
    pub(super) fn held(&self, text: &str, held: &mut Vec<usize>) {
        let count = self.stretch.len();
        let (mut sure, mut short, mut key) = (vec![false; count], vec![false; count], vec![false; count]);
        self.each(text.as_bytes(), |needle, _| {
            for (at, role) in &needle.owners {
                let noted = match role {
                    Role::Anywhere | Role::Word | Role::Held => &mut sure,
                    Role::Short => &mut short,
                    Role::Key => &mut key,
                };
                noted[*at as usize] = true;
            }
        });
        held.extend((0..count).filter(|at| sure[*at] || (short[*at] && key[*at])).map(|at| self.stretch.start + at));
    }

    /// How many bytes at the end of a text are the beginning of a value.
    pub(super) fn begun(&self, text: &str) -> Option<usize> {
        let text = text.as_bytes();
        let from = text.len().saturating_sub(self.longest_bytes);
        let to = (text.len() + 1).saturating_sub(ANYWHERE_BYTES_MIN);
        let is_begun = |at: &usize| {
            let end = &text[*at..];
            let first = self.needles.partition_point(|needle| needle.text.as_bytes() < end);
            let begun = self.needles[first..].iter().take_while(|needle| needle.text.as_bytes().starts_with(end));
            begun.into_iter().any(|needle| needle.is(Role::Anywhere))
        };
        (from..to).find(is_begun).map(|at| text.len() - at)
    }

    /// Every place of every needle in a text.
    fn each<'f>(&'f self, text: &[u8], mut found: impl FnMut(&'f Needle, Range<usize>)) {
        for anchor in self.automaton.find_overlapping_iter(text) {
            let group = &self.needles[self.groups[anchor.pattern().as_usize()].clone()];
            let rest = &text[anchor.end()..];
            beginnings(group, anchor.end() - anchor.start(), rest, |needle| {
                found(needle, anchor.start()..anchor.start() + needle.text.len());
            });
        }
    }
}

/// The beginnings of needles, each once, and which needles have it.
fn anchored(needles: &[Needle]) -> (Vec<&[u8]>, Vec<Range<usize>>) {
    let (mut anchors, mut groups): (Vec<&[u8]>, Vec<Range<usize>>) = Default::default();
    for (at, needle) in needles.iter().enumerate() {
        let text = needle.text.as_bytes();
        let anchor = &text[..text.len().min(ANCHOR_BYTES_MAX)];
        match groups.last_mut().filter(|_| anchors.last() == Some(&anchor)) {
            Some(group) => group.end = at + 1,
            None => {
                anchors.push(anchor);
                groups.push(at..at + 1);
            }
        }
    }
    (anchors, groups)
}

/// The needles of a group whose bytes from a place on are the beginning of a text, longest first. The one before which the
/// text would stand has the most in common with it, so no other one can have more.
fn beginnings<'f>(group: &'f [Needle], from: usize, text: &[u8], mut found: impl FnMut(&'f Needle)) {
    let mut text = text;
    loop {
        let after = group.partition_point(|needle| needle.rest(from) <= text);
        let Some(needle) = after.checked_sub(1).map(|last| &group[last]) else { return };
        let shared = needle.rest(from).iter().zip(text).take_while(|(one, other)| one == other).count();
        let is_whole = shared == needle.rest(from).len();
        if is_whole {
            found(needle);
        }
        if shared == 0 && is_whole {
            return;
        }
        text = &text[..if is_whole { shared - 1 } else { shared }];
    }
}

/// Adds a place, to the last one where they overlap: what repeats itself is found at every byte.
fn add(places: &mut Vec<Range<usize>>, place: Range<usize>) {
    match places.last_mut() {
        Some(last) if (last.start..last.end).contains(&place.start) => last.end = last.end.max(place.end),
        _ => places.push(place),
    }
}
