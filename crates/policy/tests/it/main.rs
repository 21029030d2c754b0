//! Rule sets from files, and the scanner on its corpus.

mod arguments;
mod candidate;
mod evidence;
mod rules;
mod live;
mod scanner;
