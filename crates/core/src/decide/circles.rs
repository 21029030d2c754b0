//! Tool loops that go in circles: turn after turn the same calls, with the same arguments and the same answers.

use crate::limits::SAME_TURNS_MAX;
use crate::transcript::{Message, ToolRequest};

/// Whether the last [`SAME_TURNS_MAX`] turns of a conversation were the same. Anything that was said in between, by a hook
/// or a person, begins the count anew.
pub(super) fn goes_in_circles(tail: &[Message]) -> bool {
    let (mut last, mut same) = (None, 0);
    let mut answers: Vec<(&str, bool)> = Vec::new();
    for message in tail.iter().rev() {
        match message {
            Message::Tool { content, is_error, .. } => answers.push((content, *is_error)),
            Message::Assistant { tool_calls, .. } if !tool_calls.is_empty() => {
                let turn = (asked(tool_calls), std::mem::take(&mut answers));
                if last.get_or_insert_with(|| turn.clone()) != &turn {
                    return false;
                }
                same += 1;
                if same >= SAME_TURNS_MAX {
                    return true;
                }
            }
            Message::Assistant { .. } | Message::System { .. } | Message::User { .. } => return false,
        }
    }
    false
}

fn asked(calls: &[ToolRequest]) -> Vec<(&str, &crate::value::Value)> {
    calls.iter().map(|call| (&*call.name, &call.arguments)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn turn(n: usize, argument: &str, answer: &str) -> [Message; 2] {
        let id: crate::ids::Name = format!("c{n}").into();
        let arguments = Value::object([("q", Value::str(argument))]);
        let call = ToolRequest { id: id.clone(), name: "look".into(), arguments };
        [
            Message::Assistant { content: "".into(), tool_calls: vec![call], attachments: Value::Null },
            Message::Tool { call_id: id, content: answer.into(), is_error: false },
        ]
    }

    fn turns(of: impl Fn(usize) -> [Message; 2], count: usize) -> Vec<Message> {
        (0..count).flat_map(of).collect()
    }

    #[test]
    fn the_same_turn_again_and_again_is_noticed() {
        assert!(!goes_in_circles(&turns(|n| turn(n, "x", "nothing"), SAME_TURNS_MAX - 1)));
        assert!(goes_in_circles(&turns(|n| turn(n, "x", "nothing"), SAME_TURNS_MAX)));
        let mut begun = turns(|n| turn(n, "y", "something"), 5);
        begun.extend(turns(|n| turn(n, "x", "nothing"), SAME_TURNS_MAX));
        assert!(goes_in_circles(&begun), "what was before does not matter");
    }

    #[test]
    fn work_that_moves_on_is_none() {
        let steps = |n: usize| turn(n, &format!("page {n}"), "a page");
        assert!(!goes_in_circles(&turns(steps, 15)), "other arguments");
        let polls = |n: usize| turn(n, "status", &format!("{n} of 15 done"));
        assert!(!goes_in_circles(&turns(polls, 15)), "other answers");
        let mut told = turns(|n| turn(n, "x", "nothing"), SAME_TURNS_MAX - 1);
        told.push(Message::User { content: "try something else".into() });
        told.extend(turn(99, "x", "nothing"));
        assert!(!goes_in_circles(&told), "somebody said something");
    }
}
