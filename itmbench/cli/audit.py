"""``itmbench audit``: takes what ``itmbench test`` takes, and says what a method's test numbers prove."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from itmbench.cli.arguments import import_from_here
from itmbench.cli.fit import short_help
from itmbench.data.corpus import Corpus
from itmbench.data.datamodule import CorpusDataModule
from itmbench.errors import InputError
from itmbench.evaluation.canaries import part
from itmbench.evaluation.leaks import Finding
from itmbench.logs import quiet
from itmbench.methods.base import Matcher
from itmbench.runner.audit import audit
from itmbench.runner.lightning import MatcherCLI

SUMMARY = "Check, on a method with or without a checkpoint, that its test numbers use nothing that they must not use."
EXAMPLE = "itmbench audit --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt"
OPTIONS = "  --images 300                       most images of the test split to use"


def run(command: str, arguments: Sequence[str]) -> int:
    """Run the audit and print a line for each check.

    Returns:
        1 if a check fails, else 0.
    """
    if not arguments or {"-h", "--help"} & set(arguments):
        print(short_help(command, SUMMARY, EXAMPLE, OPTIONS))
        return 0
    import_from_here()
    cli = AuditCLI(["test", *arguments])
    if not cli.trainer.is_global_zero:
        return 0
    return 0 if all(finding.passed for finding in cli.findings) else 1


class AuditCLI(MatcherCLI):
    """LightningCLI's ``test`` with the audit in the place of the test; nothing is logged or written."""

    corpus: Corpus
    findings: list[Finding]

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """One argument of its own."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--images", type=int, default=300, help="most images of the test stage to use")

    def before_instantiate_classes(self) -> None:
        """Canaries are no results: no logger, no saved config, no progress bar."""
        super().before_instantiate_classes()
        self.save_config_callback = None
        self.config.test.trainer.logger = False
        self.config.test.trainer.enable_progress_bar = False

    def test(self, model: Matcher, datamodule: CorpusDataModule, verbose: bool, **options: Any) -> None:
        """What runs instead of the trainer's test."""
        if self.config.test.images < 2:
            raise InputError(f"--images {self.config.test.images}: give 2 or more, so that one can know of another")
        self.corpus = part(datamodule.corpus, self.config.test.images)
        with quiet():
            self.findings = audit(self.trainer, model, datamodule.with_corpus(self.corpus), **options)

    def after_test(self) -> None:
        """Print the findings."""
        if self.trainer.is_global_zero:
            images = self.corpus.stages["test"].images
            texts = len(self.corpus.texts_of(images))
            print(f"{self.corpus.name}, audit of {type(self.model).__name__}: {len(images)} images, {texts} texts")
            for finding in self.findings:
                print(f"  {finding}")
