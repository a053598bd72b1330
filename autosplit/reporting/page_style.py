"""The style sheet of the report page; colours for light and for dark surroundings."""

CSS = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1f2a37; --soft: #5b6673;
  --line: #dfe3e8; --accent: #1f6aa5; --good: #00734f; --bad: #b34700; --mark: #e8f1f9;
  --warn: #fff4e0; --warn-line: #d98b00; }
@media (prefers-color-scheme: dark) { :root { --page: #12161b; --card: #1a2027; --ink: #e4e8ed;
  --soft: #a0abb8; --line: #323b46; --accent: #6db3ea; --good: #3fcf9f; --bad: #ff9c5b;
  --mark: #1d3347; --warn: #33270f; --warn-line: #c98a1c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 0 0 .6rem; }
p { margin: .5rem 0; max-width: 78ch; }
.lead { font-size: 1.08rem; }
.soft, figcaption, .note { color: var(--soft); font-size: .88rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px; margin: 18px 0; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(146px, 1fr)); gap: 12px;
  margin: 18px 0; }
.numbers div { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 14px; }
.numbers b { display: block; font-size: 1.5rem; line-height: 1.25; }
.numbers small { display: block; color: var(--soft); margin-bottom: 4px; }
.tag { display: inline-block; font-size: .68rem; font-weight: 600; line-height: 1.5;
  padding: 0 6px; border-radius: 8px; border: 1px solid currentColor; white-space: nowrap; }
.tag.simulated { color: var(--accent); } .tag.measured { color: var(--good); }
.tag.counted { color: var(--soft); }
.warning { background: var(--warn); border-left: 5px solid var(--warn-line); padding: 8px 14px;
  border-radius: 6px; margin: 10px 0; }
.warning p { max-width: none; }
ul.plain { list-style: none; padding: 0; margin: .4rem 0; }
ul.plain li { padding: .12rem 0 .12rem 1.6em; text-indent: -1.6em; }
.sign { display: inline-block; width: 1.6em; text-indent: 0; font-weight: 700; }
.right, .slower .sign { color: var(--good); } .wrong, .faster .sign { color: var(--bad); }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .88rem; min-width: min(100%, 460px); }
th, td { text-align: left; padding: 6px 8px; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-weight: 600; vertical-align: bottom; white-space: nowrap; }
td:first-child { white-space: nowrap; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
tr.chosen td { background: var(--mark); font-weight: 600; }
figure { margin: .6rem 0 0; } figure .scroll { margin: 0; }
.plot { display: block; width: 100%; min-width: 620px; height: auto; }
.plot.narrow { max-width: 640px; min-width: 420px; }
.graph { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 8px;
  overflow: auto; max-height: 78vh; }
.graph img { display: block; margin: 0 auto; max-width: max(100%, 900px); height: auto; }
.photographs { display: grid; grid-template-columns: repeat(auto-fill, minmax(152px, 1fr));
  gap: 14px; }
.photographs figure { margin: 0; font-size: .82rem; line-height: 1.4; overflow-wrap: anywhere; }
.photographs img { width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 8px;
  display: block; margin-bottom: 5px; }
.photographs figcaption { font-size: inherit; color: inherit; }
details { margin: .6rem 0 0; } summary { cursor: pointer; color: var(--accent); }
dl { display: grid; grid-template-columns: minmax(110px, 190px) 1fr; gap: 6px 16px; margin: 0; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
pre { overflow-x: auto; font-size: .8rem; background: var(--page); padding: 10px;
  border-radius: 6px; }
@media (max-width: 560px) { main { padding: 16px 10px 40px; } section { padding: 14px 12px; }
  h1 { font-size: 1.4rem; } dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 8px; }
  .photographs { grid-template-columns: repeat(2, 1fr); } }
@media print { section, .numbers div { break-inside: avoid; } .graph { max-height: none; } }
"""
