//! Exports of the audit trail: written, signed, and checked without the store.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::json;
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::seal::Last;
use windlass_ports::store::Removed;
use windlass_runtime::audit::{Line, Reading, Verdict};
use windlass_runtime::trail;

use crate::app::App;
use crate::args::AuditExport;
use crate::exit::{Exit, Problem};
use crate::sign::{self, Signer};

/// Removals of one run that are looked at for whose it is.
const KEPT_MAX: usize = 1_000;

fn unwritten(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(Exit::Unreachable, "cli.io", format!("cannot write `{}`: {error}", path.display()))
}

/// A file of lines, hashed as it is written.
struct Lines<'a> {
    path: &'a Path,
    file: BufWriter<File>,
    hash: blake3::Hasher,
    count: u64,
}

impl<'a> Lines<'a> {
    fn create(path: &'a Path) -> Result<Self, Problem> {
        let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = opened.map_err(|error| unwritten(path, &error))?;
        Ok(Self { path, file: BufWriter::new(file), hash: blake3::Hasher::new(), count: 0 })
    }

    fn write(&mut self, line: &Line) -> Result<Vec<u8>, Problem> {
        let mut bytes = serde_json::to_vec(line).map_err(|error| Problem::bug(error.to_string()))?;
        bytes.push(b'\n');
        self.hash.update(&bytes);
        self.count += 1;
        self.file.write_all(&bytes).map_err(|error| unwritten(self.path, &error))?;
        bytes.pop();
        Ok(bytes)
    }

    /// The last line, and the signature over it.
    fn end(mut self, last: Last, signer: Option<&Signer>) -> Result<u64, Problem> {
        let digest = Digest(*self.hash.finalize().as_bytes());
        let end = self.write(&Line::End { lines: self.count, digest, last })?;
        if let Some(signer) = signer {
            let (public_key, signature) = (signer.public().into(), signer.sign(&end).into());
            self.write(&Line::Signature { algorithm: sign::ALGORITHM.into(), public_key, signature })?;
        }
        let written = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        written.map_err(|error| unwritten(self.path, &error))?;
        Ok(self.count)
    }
}

/// Writes the trail of a tenant or a run to a file.
pub(crate) async fn export(app: &App, args: AuditExport) -> Result<Exit, Problem> {
    let signer = args.sign.as_deref().map(Signer::read).transpose()?;
    let store = app.readable_store().await?.ok_or_else(|| app.no_store())?;
    let run = args.run.as_deref().map(RunId::stored);
    let tenant: Name = match &run {
        None => args.tenant.as_str().into(),
        Some(run) => {
            let there = store.load(run.clone()).await?.map(|stored| stored.head.tenant);
            let of = Removed::Run(run.clone());
            let (unproven, _) = trail::unproven(&*store, &of, (0, u64::MAX)).await?;
            let kept = store.trail().kept(of, 0, KEPT_MAX).await?;
            // Rows that somebody made up do not say whose a run is, unless there are no others.
            let proven = kept.iter().find(|kept| !unproven.contains(&kept.number)).or(kept.first());
            let found = there.or_else(|| proven.map(|kept| kept.tenant.clone()));
            found.ok_or_else(|| Problem::unknown_run(run.as_str()))?
        }
    };
    let (mut lines, mut left_out) = (Lines::create(&args.out)?, Vec::new());
    let write = |line: &Line| {
        if let Line::Unread { run, message, .. } = line {
            left_out.push(format!("`{run}`: {message}"));
        }
        lines.write(line).map(|_| ())
    };
    let written = trail::export(&*store, &tenant, run.as_ref(), app.now(), write).await;
    let ended = written.and_then(|last| lines.end(last, signer.as_ref()).map(|count| (last, count)));
    let (last, count) = ended.inspect_err(|_| {
        // A part of an export is none.
        let _gone = std::fs::remove_file(&args.out);
    })?;
    let value = json!({
        "file": args.out, "tenant": tenant, "lines": count, "last": last,
        "signed_by": signer.as_ref().map(Signer::public), "left_out": left_out,
    });
    app.output.sentence(&value, &format!("{} has {count} lines of `{tenant}`", args.out.display()));
    for chain in &left_out {
        app.output.note(&format!("left out: {chain}"));
    }
    Ok(if left_out.is_empty() { Exit::Ok } else { Exit::Failed })
}

/// What an export is worth.
pub(crate) struct Checked {
    pub(crate) verdict: Verdict,
    /// The public key that signed it.
    pub(crate) signed_by: Option<String>,
}

/// The lines of an export as they are read.
struct Received {
    reading: Reading,
    hash: blake3::Hasher,
    count: u64,
    wrong: Vec<String>,
    end: Option<Vec<u8>>,
    signed_by: Option<String>,
}

impl Received {
    fn new(anchors: &[(Name, u64, Digest)]) -> Self {
        let (reading, hash) = (Reading::new(anchors.to_vec()), blake3::Hasher::new());
        Self { reading, hash, count: 0, wrong: Vec::new(), end: None, signed_by: None }
    }

    fn line(&mut self, bytes: &[u8]) -> Result<(), String> {
        let line: Line = serde_json::from_slice(bytes).map_err(|error| format!("it is none of an export: {error}"))?;
        match (&line, &self.end) {
            (Line::Signature { public_key, signature, .. }, Some(end)) => {
                if sign::is_signed(public_key, signature, end) {
                    self.signed_by = Some(public_key.to_string());
                } else {
                    self.wrong.push("the signature is not one of its key over this export".to_owned());
                }
            }
            (_, Some(_)) => self.wrong.push("there are lines after the end".to_owned()),
            (Line::End { lines, digest, .. }, None) => {
                if *lines != self.count || digest.0 != *self.hash.finalize().as_bytes() {
                    self.wrong.push("the lines are not those that were written".to_owned());
                }
                self.end = Some(bytes.to_vec());
            }
            (_, None) => {}
        }
        self.hash.update(bytes);
        self.hash.update(b"\n");
        self.count += 1;
        self.reading.line(line)
    }
}

/// Checks an export.
///
/// # Errors
/// A file that is none.
pub(crate) fn check(
    path: &Path,
    public_key: Option<&Path>,
    anchors: &[(Name, u64, Digest)],
) -> Result<Checked, Problem> {
    let wanted = public_key.map(sign::public_key).transpose()?;
    let unread = |error: std::io::Error| Problem::invalid(format!("cannot read `{}`: {error}", path.display()));
    let mut received = Received::new(anchors);
    let lines = || Ok::<_, Problem>(BufReader::new(File::open(path).map_err(unread)?).split(b'\n'));
    for bytes in lines()? {
        let line = received.count + 1;
        let taken = received.line(&bytes.map_err(unread)?);
        taken.map_err(|why| Problem::invalid(format!("line {line} of `{}`: {why}", path.display())))?;
    }
    let Received { mut reading, mut wrong, end, signed_by, .. } = received;
    while reading.next_part() {
        for bytes in lines()? {
            let line = serde_json::from_slice(&bytes.map_err(unread)?).map_err(|error| error.to_string());
            let taken = line.and_then(|line| reading.line(line));
            taken.map_err(|why| Problem::invalid(format!("`{}` has changed: {why}", path.display())))?;
        }
    }
    if end.is_none() {
        wrong.push("the end is missing: it was cut off".to_owned());
    }
    match (&wanted, &signed_by) {
        (Some(wanted), Some(found)) if wanted != found => {
            wrong.push(format!("it is signed by {found}, not by the key that was given"));
        }
        (Some(_), None) => wrong.push("it is not signed with the key that was given".to_owned()),
        _ => {}
    }
    let verdict = reading.finish(wrong).map_err(|why| Problem::invalid(format!("`{}`: {why}", path.display())))?;
    Ok(Checked { verdict, signed_by })
}
