"""The commands and their groups."""

from __future__ import annotations

import typer

from broadsheet.cli import (
    atoms,
    atoms_benchmark,
    atoms_dft,
    atoms_sets,
    language,
    language_decontaminate,
    language_directions,
    language_diversity,
    language_jigsaw,
    language_neurons,
    language_patch,
    language_posttrain,
    language_quantize,
    matter,
    networks,
    neurons,
    pages,
    readership,
    readership_accounts,
    recordings,
    recordings_connectome,
    recordings_decode,
    recordings_states,
    recordings_worm,
    running,
    serving,
    transport,
    verifying,
)

app = typer.Typer(
    name="broadsheet",
    help="A page of daily papers, running: import, run, check and build on every paper.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from broadsheet import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


for name, command in {
    "import": pages.import_,
    "list": pages.list_,
    "show": pages.show,
    "search": pages.search,
    "run": running.run,
    "verify": verifying.verify,
    "build": running.build,
    "serve": serving.serve,
    "work": serving.work,
    "watch": serving.watch,
    "digest": readership.digest,
    "report": running.report,
    "new": pages.new,
    "gc": running.gc,
}.items():
    app.command(name, cls=verifying.WithGrowth if name == "verify" else None)(command)  # type: ignore[type-var]
app.add_typer(serving.db, name="db", help="The database: upgrade, backup, restore.")
app.add_typer(readership.readers, name="readers")
for name, command in {
    "link": readership_accounts.link,
    "list": readership_accounts.list_,
    "moderator": readership_accounts.moderator,
    "block": readership_accounts.block,
    "export": readership_accounts.export,
    "delete": readership_accounts.delete,
}.items():
    readership.readers.command(name)(command)  # type: ignore[type-var]
app.add_typer(neurons.app, name="neurons", help="Neurons, on your own recordings and networks.")
app.add_typer(networks.app, name="networks", help="Networks of neurons.")
app.add_typer(atoms.app, name="atoms", help="Potentials, density functionals and sets of structures.")
for name, command in {
    "compress": atoms_sets.compress,
    "outliers": atoms_sets.outliers,
    "entropy": atoms_sets.entropy,
    "dft": atoms_dft.dft,
}.items():
    atoms.app.command(name)(command)  # type: ignore[type-var]
atoms.app.add_typer(atoms_benchmark.app, name="benchmark")
app.add_typer(transport.app, name="transport", help="Laws carried into one another: trajectories, positive data.")
app.add_typer(language.app, name="language", help="Language models.")
for name, command in {
    "decontaminate": language_decontaminate.decontaminate,
    "directions": language_directions.directions,
    "diversity": language_diversity.diversity,
    "jigsaw": language_jigsaw.jigsaw,
    "neurons": language_neurons.neurons,
    "patch": language_patch.patch,
    "posttrain": language_posttrain.posttrain,
    "quantize": language_quantize.quantize,
}.items():
    language.app.command(name)(command)  # type: ignore[type-var]
app.add_typer(matter.app, name="matter", help="Tracked particles.")
app.add_typer(recordings.app, name="recordings", help="Recordings of neurons and behaviour: NWB, .npz, CSV.")
for name, command in {
    "describe": recordings.describe,
    "decode": recordings_decode.decode,
    "connectome": recordings_connectome.connectome,
    "states": recordings_states.states,
    "worm": recordings_worm.worm,
}.items():
    recordings.app.command(name)(command)  # type: ignore[type-var]
