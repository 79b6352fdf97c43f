//! The program `rookery`: its commands, from the command line to the exit code.
//!
//! The program is a module of the library: what `main` runs is compiled once, with the library, and not once more with it.

use std::path::Path;
use std::process::ExitCode;

use crate::admin::Folder;
use crate::cluster::{seconds, security};
use crate::config::{self, Config};
use crate::net::{Net as _, Tcp};
use crate::signals::{Ask, Signals};
use crate::start::{self, Found};
use crate::tls::development;
use crate::{check, dev_store, serve};
use clap::Parser as _;
use rookery_cluster::seams::Seams;
use rookery_demo as demo;
use rookery_ops::admin::{Address, Error, Kind, connect, not_running};
use rookery_ops::cli::{AdminCommand, CertArgs, Cli, ClusterCommand, ClusterVerb, Command, DemoArgs};
use rookery_ops::commands::{self, Terminal};

/// Does what the command line asks for. Exit codes: 0 done, 1 failed, others as [`Kind::exit_code`] says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = cli.verb();
    match &command {
        Command::Version => {
            println!("rookery {}", rookery_ops::VERSION);
            return ExitCode::SUCCESS;
        }
        // Whatever is in the file that is there.
        Command::Check { example: true } => {
            print!("{}", config::example());
            return ExitCode::SUCCESS;
        }
        Command::Cluster(ClusterCommand::Cert(arguments)) => {
            return certificates(arguments, cli.config.as_deref());
        }
        _ => {}
    }
    if cli.tied {
        demo::child::tie();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    if let Command::Store(arguments) = &command {
        let served = runtime.block_on(dev_store::run(arguments, &Tcp));
        return served.map_or_else(|e| fail(&e, 1), |()| ExitCode::SUCCESS);
    }
    if let Command::Demo(arguments) = &command {
        let shown = runtime.block_on(demonstrate(arguments));
        // A thread may still wait for a key: it is not waited for.
        runtime.shutdown_background();
        return shown.map_or_else(|e| fail(&*e, 1), |()| ExitCode::SUCCESS);
    }
    let config = match Config::load_or_development(cli.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return fail(&error, Kind::Invalid.exit_code()),
    };
    match command {
        Command::Serve => {
            runtime.block_on(serve::run(config)).map_or_else(|e| fail(&e, 1), |()| ExitCode::SUCCESS)
        }
        Command::Admin(command) => done(runtime.block_on(administer(command, cli.admin, config))),
        Command::Cluster(ClusterCommand::Ask(verb)) => {
            done(runtime.block_on(ask_cluster(verb, cli.admin, config)))
        }
        Command::Check { .. }
        | Command::Version
        | Command::Store(_)
        | Command::Demo(_)
        | Command::Cluster(_) => match check::check(&config) {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error, Kind::Invalid.exit_code()),
        },
    }
}

fn done(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, error.kind.exit_code()),
    }
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("rookery: {error}");
    ExitCode::from(code)
}

/// `rookery demo`: with sockets and certificates as a node has them.
async fn demonstrate(arguments: &DemoArgs) -> Result<(), Box<dyn std::error::Error>> {
    let mut signals = Signals::new()?;
    let stop = async move { while signals.next().await != Ask::Stop {} };
    let lent = demo::Lent {
        listen: |at| Tcp.bind(at),
        certificate: |folder, domain, now| {
            let made = development::certificate(folder, domain, &[domain], now).map_err(|e| e.to_string())?;
            Ok(demo::Files { certificate: made.certificate, key: made.key })
        },
        authority: development::AUTHORITY,
    };
    Ok(demo::run(arguments, lent, stop).await?)
}

/// `rookery cluster cert`: without a node, and without a configuration if nodes are named.
fn certificates(arguments: &CertArgs, file: Option<&Path>) -> ExitCode {
    let config = match file.map(Config::load).transpose() {
        Ok(config) => config,
        Err(error) => return fail(&error, Kind::Invalid.exit_code()),
    };
    done(security::make(arguments, config.as_ref(), seconds(&Seams::system())).map(|said| print!("{said}")))
}

fn terminal(seams: &Seams) -> Terminal {
    let random = seams.random.clone();
    Terminal::system(move |buf| random.fill(buf))
}

/// Asks the running node about its cluster.
async fn ask_cluster(verb: ClusterVerb, at: Option<Address>, config: Config) -> Result<(), Error> {
    let address = at.map_or_else(|| Address::new(&config.listen.admin), Ok)?;
    match connect(&address).await? {
        Some(remote) => commands::cluster(&verb, &remote, &terminal(&Seams::system())).await,
        None => Err(not_running(&address)),
    }
}

/// Asks the running node, or works on its data folder if none runs.
async fn administer(command: AdminCommand, at: Option<Address>, config: Config) -> Result<(), Error> {
    let seams = Seams::system();
    let terminal = terminal(&seams);
    let address = match at {
        Some(address) => address,
        None => Address::new(&config.listen.admin)?,
    };
    match connect(&address).await? {
        Some(remote) => commands::run(&command, &remote, &terminal).await,
        None if command.needs_node() => Err(not_running(&address)),
        // A node that is just starting has its store open and does not answer yet.
        None => match start::store_or_node(&config, seams.clone(), &address, &|line| terminal.remark(line))
            .await?
        {
            Found::Node(remote) => commands::run(&command, &remote, &terminal).await,
            Found::Store(store) => {
                let folder = Folder::over(store, config, seams);
                let done = commands::run(&command, &folder, &terminal).await;
                folder.close().await?;
                done
            }
        },
    }
}
