//! Questions about objects and references of the mirror, put to one git that stays for a while.
//!
//! A process takes longer to start than to answer, and a look asks one thing after the other: where a branch stands,
//! for a tree, for what stands there, for what that names. So they are asked of one `git cat-file --batch-command`,
//! by a task of its own: whoever stops waiting for an answer leaves the questions of others as they are.

use std::{io, os::fd::OwnedFd, sync::atomic::Ordering, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    Error,
    error::tells_of_damage,
    git::{Ended, GRACE, Git, Group, Invocation, LOCAL_LIMIT, Place},
    remote::redact,
};

/// How long git stays without a question: it keeps what it read of a large repository in memory.
const IDLE: Duration = Duration::from_secs(10);
/// How many askers may wait without being held up.
const WAITING: usize = 16;

/// Asks git about the mirror's objects. Its task ends with it.
#[derive(Debug)]
pub(super) struct Reader(mpsc::Sender<Message>);

/// What an object is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Its kind and its size.
    Header,
    /// Its content as well.
    Content,
}

/// An object that the mirror has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) id: String,
    /// `blob`, `tree`, `commit` or `tag`.
    pub(super) kind: String,
    /// In bytes.
    pub(super) size: u64,
    /// Empty where only the header was asked for.
    pub(super) content: Vec<u8>,
}

#[derive(Debug)]
enum Message {
    Asked(Question, oneshot::Sender<Result<Vec<Option<Object>>, Error>>),
    /// The repository is made anew or packed: what git knows of it is of the past.
    Changed,
}

#[derive(Debug)]
struct Question {
    operation: &'static str,
    want: Want,
    names: Vec<String>,
}

impl Reader {
    /// Git is started by the first question.
    pub(super) fn new(git: &Git) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        tokio::spawn(serve(git.clone(), receiver));
        Self(sender)
    }

    /// The objects of these names, in their order; `None` for those that the mirror does not have. A name is an id or
    /// a reference, as `git rev-parse` reads them, and may end in `^{tree}` or `^{commit}`; it has no line breaks.
    pub(super) async fn ask(
        &self,
        operation: &'static str,
        want: Want,
        names: Vec<String>,
    ) -> Result<Vec<Option<Object>>, Error> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::Pipe { operation, source: io::ErrorKind::BrokenPipe.into() };
        let message = Message::Asked(Question { operation, want, names }, reply);
        self.0.send(message).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Starts git, unless it runs: the next question is answered sooner.
    pub(super) async fn prepare(&self) {
        let prepared = self.ask("prepare to read the mirror", Want::Header, Vec::new()).await;
        if let Err(error) = prepared {
            tracing::debug!(%error, "cannot prepare to read the mirror");
        }
    }

    /// Ends git, so that the next question is answered by one that knows nothing of the repository's past.
    pub(super) async fn forget(&self) {
        // A task that is gone has ended its git.
        self.0.send(Message::Changed).await.unwrap_or_default();
    }
}

/// Answers questions until nobody is left to ask any.
async fn serve(git: Git, mut messages: mpsc::Receiver<Message>) {
    let mut kept: Option<Process> = None;
    loop {
        let message = match &kept {
            Some(_) => timeout(IDLE, messages.recv()).await,
            None => Ok(messages.recv().await),
        };
        match message {
            Ok(Some(Message::Asked(question, reply))) => {
                // Whoever asked may have stopped waiting.
                reply.send(answer(&git, &mut kept, &question).await).unwrap_or_default();
            }
            Ok(Some(Message::Changed)) | Err(_) => kept = None,
            Ok(None) => return,
        }
    }
}

async fn answer(
    git: &Git,
    kept: &mut Option<Process>,
    question: &Question,
) -> Result<Vec<Option<Object>>, Error> {
    if let Some(mut process) = kept.take()
        && let Ok(objects) = process.answer(git, question).await
    {
        *kept = Some(process);
        return Ok(objects);
    }
    // One that was kept may have been killed since.
    let mut process = Process::start(git)?;
    let objects = process.answer(git, question).await?;
    *kept = Some(process);
    Ok(objects)
}

/// A git that answers questions.
struct Process {
    /// Ends it where it is given up, and therefore goes before the child.
    group: Group,
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Read without waiting: what git has to say of an answer stands there before the answer does.
    complaints: OwnedFd,
}

impl Process {
    fn start(git: &Git) -> Result<Self, Error> {
        let operation = "start git to read the mirror";
        let invocation = Invocation::new(operation, ["cat-file", "--batch-command"]).input("");
        let (mut child, group) = git.start(&invocation)?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(questions), Some(answers), Some(complaints)) = pipes else {
            return Err(Error::Pipe { operation, source: io::ErrorKind::BrokenPipe.into() });
        };
        let complaints = complaints.into_owned_fd().and_then(|complaints| {
            rustix::io::ioctl_fionbio(&complaints, true)?;
            Ok(complaints)
        });
        let complaints = complaints.map_err(|source| Error::Pipe { operation, source })?;
        Ok(Self { group, child, questions, answers: BufReader::new(answers), complaints })
    }

    async fn answer(&mut self, git: &Git, question: &Question) -> Result<Vec<Option<Object>>, Error> {
        let operation = question.operation;
        let exchanged = timeout(LOCAL_LIMIT, self.exchange(question)).await;
        let exchanged = exchanged.map_err(|_| Error::TimedOut { operation, limit: LOCAL_LIMIT })?;
        let is_unclear = |source: &io::Error| source.kind() == io::ErrorKind::InvalidData;
        let status = match &exchanged {
            // It has ended, and says why.
            Err(source) if !is_unclear(source) => timeout(GRACE, self.child.wait()).await.ok(),
            _ => None,
        };
        let stderr = self.complaints();
        if tells_of_damage(&stderr) {
            git.damaged.store(true, Ordering::Relaxed);
        }
        match (exchanged, status) {
            (Ok(objects), _) => Ok(objects),
            (Err(_), Some(Ok(status))) => {
                self.group.ended();
                let (place, code) = (Place::Mirror, status.code());
                Err(Ended { operation, place, code, stdout: Vec::new(), stderr }.error())
            }
            (Err(source), _) if is_unclear(&source) => Err(Error::Answer { operation }),
            (Err(source), _) => Err(Error::Pipe { operation, source }),
        }
    }

    /// Puts all names and takes all answers at once, so that no pipe fills up.
    async fn exchange(&mut self, question: &Question) -> io::Result<Vec<Option<Object>>> {
        let command = match question.want {
            Want::Header => "info",
            Want::Content => "contents",
        };
        let lines: String = question.names.iter().flat_map(|name| [command, " ", name, "\n"]).collect();
        let put = async { self.questions.write_all(lines.as_bytes()).await };
        let take = async {
            let mut objects = Vec::with_capacity(question.names.len());
            for name in &question.names {
                objects.push(take(&mut self.answers, name, question.want).await?);
            }
            Ok(objects)
        };
        let ((), objects) = tokio::try_join!(put, take)?;
        Ok(objects)
    }

    /// What git has written to its standard error by now, without credentials.
    fn complaints(&self) -> String {
        let mut text = Vec::new();
        let mut part = [0; 4096];
        while let Ok(count @ 1..) = rustix::io::read(&self.complaints, &mut part) {
            text.extend_from_slice(&part[..count]);
        }
        redact(String::from_utf8_lossy(&text).trim())
    }
}

/// Reads `<id> <kind> <size>`, followed by the content and a line break where that was asked for, or `<name> missing`.
async fn take(answers: &mut BufReader<ChildStdout>, name: &str, want: Want) -> io::Result<Option<Object>> {
    let mut line = String::new();
    if answers.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end_matches('\n');
    if line.strip_prefix(name) == Some(" missing") {
        return Ok(None);
    }
    let Some(mut object) = header(line) else { return Err(io::ErrorKind::InvalidData.into()) };
    if want == Want::Content {
        let size = usize::try_from(object.size).map_err(|_| io::ErrorKind::InvalidData)?;
        object.content = vec![0; size + 1];
        answers.read_exact(&mut object.content).await?;
        object.content.truncate(size);
    }
    Ok(Some(object))
}

fn header(line: &str) -> Option<Object> {
    let mut words = line.split(' ');
    let (id, kind, size) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
    Some(Object { id: id.to_owned(), kind: kind.to_owned(), size, content: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            OpsRepo,
            tests::{Bench, update},
        },
        *,
    };

    async fn repo() -> (Bench, OpsRepo, String) {
        let bench = Bench::new();
        let tip = bench.commit(&[("actions/a.toml", "1"), ("actions/b.toml", "22\n")]);
        let repo = OpsRepo::open(bench.settings("mirror")).await.unwrap();
        update(&repo).await;
        (bench, repo, tip.as_str().to_owned())
    }

    fn question(want: Want, names: &[&str]) -> Question {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Question { operation: "ask", want, names }
    }

    #[tokio::test]
    async fn answers_come_in_the_order_of_the_questions_and_say_what_is_missing() {
        let (_bench, repo, tip) = repo().await;
        let absent = "0".repeat(40);
        let names = [format!("{tip}:actions/b.toml"), absent, format!("{tip}:actions"), tip.clone()];
        let answers = repo.mirror.reader.ask("ask", Want::Content, names.to_vec()).await.unwrap();
        let kinds: Vec<Option<&str>> =
            answers.iter().map(|object| Some(object.as_ref()?.kind.as_str())).collect();
        assert_eq!(kinds, [Some("blob"), None, Some("tree"), Some("commit")]);
        assert_eq!(answers[0].as_ref().unwrap().content, b"22\n");
        let headers = repo.mirror.reader.ask("ask", Want::Header, names.to_vec()).await.unwrap();
        let sizes = |objects: &[Option<Object>]| -> Vec<Option<u64>> {
            objects.iter().map(|object| Some(object.as_ref()?.size)).collect()
        };
        assert_eq!(sizes(&headers), sizes(&answers));
        assert!(headers.iter().flatten().all(|object| object.content.is_empty()));
        assert!(!repo.is_damaged(), "what is not there is no damage");
    }

    #[tokio::test]
    async fn many_questions_fill_no_pipe() {
        let (_bench, repo, tip) = repo().await;
        let names = vec![format!("{tip}:actions/a.toml"); 20_000];
        let answers = repo.mirror.reader.ask("ask", Want::Content, names).await.unwrap();
        assert!(answers.len() == 20_000 && answers.iter().flatten().all(|object| object.content == b"1"));
    }

    #[tokio::test]
    async fn one_that_was_killed_meanwhile_is_replaced() {
        let (_bench, repo, tip) = repo().await;
        let git = &repo.mirror.git;
        let mut kept = None;
        let question = question(Want::Header, &[&tip]);
        answer(git, &mut kept, &question).await.unwrap();
        let process = kept.as_mut().unwrap();
        let first = process.child.id();
        process.child.kill().await.unwrap();
        let answers = answer(git, &mut kept, &question).await.unwrap();
        assert_eq!(answers[0].as_ref().unwrap().kind, "commit");
        assert_ne!(kept.unwrap().child.id(), first);
    }

    #[tokio::test]
    async fn what_came_after_it_started_is_found() {
        let (bench, repo, tip) = repo().await;
        repo.mirror.reader.ask("ask", Want::Header, vec![tip]).await.unwrap();
        let next = bench.commit(&[("actions/c.toml", "3")]);
        let tips = update(&repo).await;
        assert_eq!(tips.branch.as_ref(), Some(&next));
        assert_eq!(repo.mirror.references(["refs/mirror/branch"]).await.unwrap(), [Some(next.clone())]);
        assert!(repo.files_at(&next, &["actions/c.toml"]).await.unwrap().len() == 1);
        // In another pack, which it has not seen either.
        repo.collect_garbage().await.unwrap();
        assert!(repo.has_commit(&next).await.unwrap());
    }
}
