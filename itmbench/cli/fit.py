"""``itmbench fit|validate|test|predict``: LightningCLI, and a short help for those who do not know it."""

from argparse import Namespace
from collections.abc import Sequence

from itmbench.cli.arguments import Parser, imports
from itmbench.here import import_from_here

SUMMARIES = {
    "fit": "Train a method on a dataset; the epoch that validates best is kept as best.ckpt, the last as last.ckpt.",
    "validate": "Evaluate a checkpoint on the validation split.",
    "test": "Evaluate a checkpoint on the test split.",
    "predict": "Write the embeddings of the test split as matrices.",
}
EXAMPLES = {
    "fit": "itmbench fit --model SEDRA --data Flickr30KMini --model.lr 5e-4 --trainer.max_epochs 5",
    "validate": "itmbench validate RUN",
    "test": "itmbench test results/mini/flickr30k-mini/sedra/seed0",
    "predict": "itmbench predict RUN --embeddings.folder X",
}
OPTIONS = """\
options that are changed most often, with example values:
  --model SEDRA                      the method; `itmbench list` shows them, and module.Class names your own
  --model.lr 0.001                   highest learning rate
  --model.dim 256                    width of the common space
  --model.loss TripletLoss           or InfoNCE; then --model.loss.margin 0.2 and the like
  --model.image TimmImageEncoder     image backbone: any model of timm; then
    --model.image.name vit_base_patch16_224 --model.image.pretrained true
    --model.image.image_size 224     pixels of a side (64 from scratch if not given)
    --model.image.freeze true        keep its weights
  --model.text PretrainedTextEncoder text backbone: BERT and the like (from scratch if not given); then
    --model.text.name bert-base-uncased
  --data Flickr30KMini               the dataset; `itmbench list` shows them
  --data.root data/flickr8k          its folder (not for the mini corpora)
  --data.batch_size 128              pairs in a training batch, on each device
  --trainer.max_epochs 20            length of training
  --trainer.accelerator cpu          or gpu; --trainer.devices 8 for several GPUs
  --trainer.precision bf16-mixed     mixed precision
  --trainer.logger WandbLogger       then --trainer.logger.project NAME; CSVLogger with .save_dir DIR; false for none
  --seed_everything 0                random seed
  --threads 1                        CPU threads of torch; numbers depend on it
  --config FILE                      options from a YAML file; later options win
  --ckpt_path FILE                   checkpoint to resume from
"""
TRAINED = """\
what to give:
  RUN                                the folder that `itmbench fit` prints, a cell of the results, or its checkpoint
  --config FILE --ckpt_path FILE     in place of RUN: its config.yaml and a checkpoint
  --data.root DIR                    where the dataset lies now
  --trainer.accelerator cpu          or gpu; --trainer.devices 8 for several GPUs
  --model CLASS --data CLASS         an untrained model; see `itmbench fit --help`
"""
MORE = """\
more:
  itmbench fit --model.help SEDRA    all options of a method (--data.help NAME: of a dataset)
  itmbench fit --help-all            all options of the trainer and the checkpoints
"""


def run(command: str, arguments: Sequence[str]) -> int:
    """Run a command of LightningCLI."""
    parser = lightning_parser(command, SUMMARIES[command], EXAMPLES[command])
    parser.add_argument("--help-all", action="store_true", help="print all options of the trainer and the checkpoints")
    parser.add_argument("--print_config", action="store_true", help="print every option as YAML, with the value in use")
    options, rest = parse(parser, arguments)

    with imports():
        from itmbench.runner.lightning import MatcherCLI, PrintConfigCLI

    if options.print_config:
        PrintConfigCLI([command, *rest])
        return 0
    try:
        MatcherCLI([command, *rest, *(["--help"] if options.help_all else [])])
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning's answers: 1 to Ctrl-C, None to SIGTERM
        interrupted = isinstance(error, KeyboardInterrupt) or error.code in (1, None)
        if not interrupted:
            raise
        resume = (
            ["once an epoch is finished: resume with --ckpt_path RUN/checkpoints/last.ckpt"] if command == "fit" else []
        )
        raise KeyboardInterrupt(*resume) from error
    return 0


def lightning_parser(command: str, summary: str, example: str) -> Parser:
    """A parser for the options that a command has beside LightningCLI's; its help shows the most common of both."""
    trains = command == "fit"
    usual = "--model CLASS --data CLASS" if trains else "RUN"
    parser = Parser(command, usage=f"itmbench {command} {usual} [--SECTION.OPTION VALUE …]", description=summary)
    parser.epilog = f"example:\n  {example}\n\n{OPTIONS if trains else TRAINED}\n{MORE}"
    return parser


def parse(parser: Parser, arguments: Sequence[str]) -> tuple[Namespace, list[str]]:
    """The options of a command, and those of LightningCLI, with a trained model as its config and checkpoint."""
    if not arguments:
        what = "--model and --data" if parser.prog == "itmbench fit" else "RUN"
        parser.error(f"the following arguments are required: {what}")
    options, rest = parser.parse_known_args(arguments)
    import_from_here()
    if not rest or rest[0].startswith("-") or parser.prog == "itmbench fit":
        return options, rest
    with imports():
        from itmbench.store.checkpoint import as_options
    return options, [*as_options(rest[0]), *rest[1:]]
