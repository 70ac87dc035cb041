"""``itmbench audit``: check a method for leaks."""

from collections.abc import Sequence

from itmbench.cli.fit import lightning_parser, parse
from itmbench.errors import InputError

SUMMARY = "Check a method, trained or not, for leaks: test numbers that depend on what it must not know."
EXAMPLE = "itmbench audit results/mini/flickr30k-mini/sedra/seed0"


def run(command: str, arguments: Sequence[str]) -> int:
    """Run the audit and print a line for each check; return 1 if one fails."""
    parser = lightning_parser(command, SUMMARY, EXAMPLE)
    parser.add_argument("--images", type=int, default=300, help="number of test images to use at most (default: 300)")
    options, rest = parse(parser, arguments)
    if options.images < 2:
        raise InputError(f"--images {options.images}: give 2 or more, so that one item could leak into another")

    from itmbench.evaluation.canaries import part
    from itmbench.logs import quiet
    from itmbench.runner.audit import audit
    from itmbench.runner.lightning import PreparedCLI
    from itmbench.runner.replay import in_fresh_process

    cli = PreparedCLI(rest, command, [*vars(options)])
    corpus = part(cli.datamodule.corpus, options.images)
    with quiet():
        data = cli.datamodule.with_corpus(corpus)
        findings = audit(cli.trainer, cli.model, data, cli.ckpt_path, in_fresh_process(rest))
    if not cli.trainer.is_global_zero:
        return 0
    images = corpus.stages["test"].images
    texts = len(corpus.texts_of(images))
    print(f"{corpus.name}, audit of {type(cli.model).__name__}: {len(images)} images, {texts} texts")
    for finding in findings:
        print(f"  {finding}")
    return 0 if all(finding.passed for finding in findings) else 1
