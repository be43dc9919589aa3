from tests.bench import report


def test_table_is_markdown_whose_columns_line_up() -> None:
    assert report.table(("host", "us"), [("native", "9"), ("c", "100")]).split("\n") == [
        "| host   |  us |",
        "| :----- | --: |",
        "| native |   9 |",
        "| c      | 100 |",
    ]


def test_memory_table_shows_processes_and_what_each_plugin_adds() -> None:
    figures = {"rss": 40e6, "pss": 20e6, "private_dirty": 18_200_000}
    text = report.part(
        "memory",
        {"events": 10, "contestants": {"agent": figures}, "increments": {"plugin": figures}},
    )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.split("\n")[-2:]]
    assert rows == [["agent", "40.0", "20.0", "18.2"], ["+ plugin", "40.00", "20.00", "18.20"]]
