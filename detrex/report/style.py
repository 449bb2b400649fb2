"""The style of pages and pictures, for light and dark screens and for paper."""

_COLORS = """
:root {
  color-scheme: light dark;
  --page: #f6f6f3; --card: #fff; --ink: #1c1c1a; --soft: #63625d; --rule: #e3e2dc;
  --good: #0b7a4b; --bad: #b3261e; --bar: #2a78d622;
  --c0: #2a78d6; --c1: #eb6834; --c2: #1baf7a; --c3: #c98500;
  --c4: #d55181; --c5: #008300; --c6: #4a3aa7; --c7: #e34948;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #161615; --card: #20201e; --ink: #f1f0ec; --soft: #a9a8a1; --rule: #383733;
    --good: #4cc38a; --bad: #ff8a80; --bar: #3987e540;
    --c0: #3987e5; --c1: #d95926; --c2: #199e70; --c3: #c98500;
    --c4: #d55181; --c5: #3aa13a; --c6: #9085e9; --c7: #e66767;
  }
}
"""
_CURVES = """
svg text { font: 11px system-ui, sans-serif; fill: var(--soft) }
svg .grid { stroke: var(--rule); fill: none }
svg .axis { stroke: var(--soft); fill: none }
svg .line { stroke: var(--c); stroke-width: 2; fill: none; stroke-linejoin: round; stroke-linecap: round }
svg .end { fill: var(--c); stroke: var(--card); stroke-width: 1.5 }
svg .hint { fill: transparent }
svg .hint:hover { fill: var(--c) }
.s0 { --c: var(--c0) } .s1 { --c: var(--c1) } .s2 { --c: var(--c2) } .s3 { --c: var(--c3) }
.s4 { --c: var(--c4) } .s5 { --c: var(--c5) } .s6 { --c: var(--c6) } .s7 { --c: var(--c7) }
"""
_PAGE = """
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 60px }
h1 { font-size: 26px; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 18px; margin: 36px 0 12px }

.chart, .shown, .scroll, .tile, details {
  background: var(--card); border: 1px solid var(--rule); border-radius: 10px; margin: 0;
}
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0 }
.tile { padding: 12px 18px; min-width: 130px }
.tile b { display: block; font-size: 28px; line-height: 1.2; font-weight: 600 }
.tile span { color: var(--soft) }

.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 370px), 1fr)); gap: 12px }
.chart { padding: 10px 12px 4px; break-inside: avoid }
.chart figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 12px }
.chart figcaption, .legend { font-size: 13px }
.chart svg { display: block; width: 100%; height: auto }
.legend { display: flex; flex-wrap: wrap; gap: 0 12px; color: var(--soft) }
.legend em { font-style: normal; color: var(--ink); font-variant-numeric: tabular-nums }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 5px }
.legend i { background: var(--c) }

.scroll { overflow: auto; max-height: 560px; margin-bottom: 12px; width: fit-content; max-width: 100% }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums }
th, td { padding: 6px 14px; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap }
th { position: sticky; top: 0; background: var(--card); font-weight: 600 }
th:first-child, td:first-child { text-align: left }
tr:last-child td { border-bottom: 0 }
.bars td:not(:first-child) {
  background: linear-gradient(to right, var(--bar) calc(var(--v, 0) * 1%), transparent 0);
}
.plain td { text-align: left; white-space: normal; overflow-wrap: anywhere }

.shown { padding: 10px 12px; margin-bottom: 12px; break-inside: avoid }
.shown img { display: block; max-width: 100% }
.shown figcaption { margin-bottom: 6px; overflow-wrap: anywhere }
.shown figcaption b { margin-right: 8px }
.shown p { margin: 0 0 8px; overflow-wrap: anywhere }
.shown ul { margin: 0 }
.row { display: flex; flex-wrap: wrap; gap: 12px; margin-bottom: 6px }
.row figure { margin: 0; width: 282px; max-width: 100% }
.row img { width: 100% }
.row figcaption { font-size: 13px; margin: 4px 0 }
.best b { color: var(--good) }
.worst b { color: var(--bad) }

details { padding: 10px 16px; margin: 12px 0 }
details[open] summary { margin-bottom: 10px }
summary { cursor: pointer; font-weight: 600 }
pre { margin: 0; overflow: auto; max-height: 640px; font: 12.5px/1.45 ui-monospace, monospace }
"""
STYLE = _COLORS + _PAGE + _CURVES
PICTURE_STYLE = (
    _COLORS
    + _CURVES
    + """
svg .card { fill: var(--card); stroke: var(--rule) }
svg .title { font: 600 12.5px system-ui, sans-serif; fill: var(--ink) }
"""
)
