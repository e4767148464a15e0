// The panel of the chosen record: error distribution, the three parts of the error, what a tolerance would have
// said, conformance, counts, worst elements, and the command that repeats it.

const blocks = document.getElementsByClassName('block');
const block = {index: -1, rows: null};
const view = {logarithmic: false, charts: [], row: -1};

/// Undoes the packing of page.cpp: [k, values...] is an object with keys[k], [-1, items...] an array.
function unpack(value) {
  if (!Array.isArray(value)) return value;
  if (value[0] === -1) return value.slice(1).map(unpack);
  return Object.fromEntries(columns.keys[value[0]].map((key, i) => [key, unpack(value[i + 1])]));
}
/// Null while the page is still being read and the row's block may not be whole.
function detailOf(row) {
  const index = Math.floor(row / columns.rows_per_block);
  if (document.readyState === 'loading' && !blocks[index + 1]) return null;
  if (block.index !== index) Object.assign(block, {index, rows: JSON.parse(blocks[index].textContent)});
  return unpack(block.rows[row % columns.rows_per_block]);
}

const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const indexText = at => at == null ? '–' : '[' + at.join(', ') + ']';
const panel = (kind, title, ...content) => h('section', {class: 'panel ' + kind, style: 'margin:0'}, h('header', {}, h('h3', {}, title)), ...content);
const pairs = list => h('dl', {class: 'pairs'}, list.filter(Boolean).map(([name, text, title]) =>
    h('div', {class: text === '0' ? 'zero' : null, title}, h('dt', {}, name), h('dd', {}, text))));

// ---- Charts -----------------------------------------------------------------------------------------------

function edgeText(value) {
  const v = numberOf(value);
  if (!Number.isFinite(v)) return v < 0 ? '−∞' : '∞';
  const text = Math.abs(v) >= 1e4 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential(1) : String(Number(v.toPrecision(4)));
  return text.replace('-', '−');
}

function chartOptions(scales, callbacks) {
  const font = {family: getComputedStyle(document.body).fontFamily, size: 12};
  for (const scale of Object.values(scales)) {
    scale.ticks = {color: style('--quiet'), font, ...scale.ticks};
    scale.grid = {color: style('--line'), borderColor: style('--strong-line'), tickLength: 4, ...scale.grid};
    if (scale.title) scale.title = {display: true, color: style('--quiet'), font, ...scale.title};
  }
  return {animation: false, responsive: true, maintainAspectRatio: false, scales,
          plugins: {legend: {display: false}, tooltip: {displayColors: false, callbacks}}};
}

/// Dashed lines where an error is half an ulp: the best a rounded output can do.
const halfUlp = {
  id: 'halfUlp',
  afterDatasetsDraw(chart, _, {places}) {
    const {ctx, chartArea, scales} = chart;
    ctx.save();
    ctx.strokeStyle = style('--ink');
    ctx.setLineDash([3, 3]);
    for (const place of places ?? []) {
      const x = Math.round(scales.x.getPixelForValue(place)) + 0.5;
      ctx.beginPath();
      ctx.moveTo(x, chartArea.top);
      ctx.lineTo(x, chartArea.bottom);
      ctx.stroke();
    }
    ctx.restore();
  },
};

/// The edges to name on the axis: the roundest first, none nearer to another than a twelfth of the width.
function namedEdges(edges, from, to) {
  const roundness = v => v === 0 ? -1 : [0.5, 1, 2].includes(Math.abs(v)) ? 0 : Number.isInteger(Math.log2(Math.abs(v))) ? 1
      : 2 + [1, 0.5, 0.25, 0.125, 0.0625].findIndex(step => v % step === 0);
  const chosen = [];
  const candidates = Array.from({length: to - from + 1}, (_, i) => from + i).filter(i => Number.isFinite(numberOf(edges[i])))
      .sort((a, b) => roundness(edges[a]) - roundness(edges[b]) || Math.abs(edges[a]) - Math.abs(edges[b]));
  for (const i of candidates)
    if (chosen.every(other => Math.abs(other - i) >= (to - from) / 12)) chosen.push(i);
  return chosen.sort((a, b) => a - b).map(value => ({value}));
}

function widensOutward({edges: list, counts, first}) {
  const edges = columns.edges[list];
  return counts.some((_, i) => edges[first + i + 1] - edges[first + i] > edges[(edges.length >> 1) + 1] - edges[edges.length >> 1]);
}

function drawDistribution(canvas, {edges: list, counts, first}) {
  const edges = columns.edges[list];
  // One empty bin on each side, where there is one, shows that nothing was cut.
  const from = Math.max(0, first - 1), to = Math.min(edges.length - 1, first + counts.length + 1);
  const count = i => counts[i - first] ?? 0;
  const points = [];
  for (let i = from; i < to; ++i) points.push({x: i + 0.5, y: count(i) || (view.logarithmic ? null : 0)});
  const places = [-0.5, 0.5].map(v => edges.indexOf(v)).filter(i => i >= from && i <= to);
  const options = chartOptions({
    x: {type: 'linear', min: from, max: to, offset: false, grid: {display: false}, title: {text: 'signed error, ulp'},
        afterBuildTicks: axis => { axis.ticks = namedEdges(edges, from, to); },
        ticks: {autoSkip: false, maxRotation: 0, callback: i => edgeText(edges[i])}},
    y: {type: view.logarithmic ? 'logarithmic' : 'linear', min: view.logarithmic ? 0.8 : 0, title: {text: 'elements'},
        ticks: {maxTicksLimit: 6, callback: v => view.logarithmic ? (/^[125]0*$/.test(v) ? countText(v) : null) : Number.isInteger(v) ? countText(v) : null}},
  }, {title: items => { const i = Math.floor(items[0].parsed.x); return `${edgeText(edges[i])} to ${edgeText(edges[i + 1])} ulp`; },
      label: item => countText(item.parsed.y) + ' elements'});
  options.plugins.halfUlp = {places};
  return new Chart(canvas, {type: 'bar', options, plugins: [halfUlp], data: {datasets: [
    {data: points, backgroundColor: style('--path'), barPercentage: 0.96, categoryPercentage: 1}]}});
}

const kParts = ['definition', 'path', 'implementation', 'total'];

function drawSplit(canvas, split) {
  const parts = kParts.filter(name => split[name]);
  const values = key => parts.map(name => { const v = numberOf(split[name][key]); return Number.isFinite(v) ? v : null; });
  const colours = parts.map(name => style('--' + name));
  const options = chartOptions({
    x: {title: {text: 'ulp'}, ticks: {maxTicksLimit: 9, maxRotation: 0, callback: v => edgeText(v)}, grid: {color: c => style(c.tick?.value === 0 ? '--ink' : '--line')}},
    y: {grid: {display: false}, ticks: {color: style('--ink')}},
  }, {label: item => `${item.dataset.label} ${item.dataset.label === 'rms' ? ulpText(item.parsed.x) : signedText(item.parsed.x)} ulp`});
  options.indexAxis = 'y';
  const common = {categoryPercentage: 0.78, barPercentage: 0.9, minBarLength: 2};
  return new Chart(canvas, {type: 'bar', options, data: {labels: parts, datasets: [
    {label: 'bias', data: values('bias'), backgroundColor: colours, ...common},
    {label: 'rms', data: values('rms'), backgroundColor: colours.map(c => c + '55'), ...common}]}});
}

// ---- Panels -----------------------------------------------------------------------------------------------

function distributionPanel(output, row) {
  const ulp = output.ulp;
  if (!ulp) return null;
  const q = ulp.quantiles ?? {};
  const condition = output.condition_ulp;
  const list = pairs([
    ['maximum', maxText(ulp.max)], ulp.max_at && ['at', indexText(ulp.max_at)],
    ...Object.keys(q).sort().map(key => [`${Number(key) * 100} % below`, ulpText(q[key])]),
    ['mean |·|', ulpText(ulp.mean_abs)], ['rms', ulpText(ulp.rms)], ['bias', signedText(ulp.bias)],
    output.rounding && ['rounded correctly', shareText(output.rounding.correct, output.counts?.compared) + ' %'],
    output.rounding && ['rounded faithfully', shareText(output.rounding.faithful, output.counts?.compared) + ' %',
                        'one of the two values of the format around the truth'],
    condition && ['condition-aware max', maxText(condition.max), 'in ulp of the sum of the sizes of the terms: plain ulps explode where terms cancel'],
    condition && ['condition-aware mean', ulpText(condition.mean_abs)],
    Number.isFinite(output.relative_l2) && ['relative L2', output.relative_l2.toExponential(2).replace('-', '−')],
    Number.isFinite(output.angle) && ['angle, rad', output.angle.toExponential(2).replace('-', '−')]]);
  const result = panel('', 'Distribution of the error');
  if (ulp.histogram?.counts?.length) {
    const canvas = h('canvas', {role: 'img', 'aria-label': `Histogram of the signed error in ulp; half of the elements are below ${ulpText(q['0.5'])}, the largest is ${maxText(ulp.max)}`});
    const draw = () => { view.charts[0]?.destroy(); view.charts[0] = drawDistribution(canvas, ulp.histogram); };
    result.firstChild.append(h('label', {}, h('input', {type: 'checkbox', id: 'log-counts', checked: view.logarithmic,
        onchange: event => { view.logarithmic = event.target.checked; draw(); }}), 'logarithmic counts'));
    result.append(h('div', {class: 'chart'}, canvas));
    view.pending.push(draw);
  }
  result.append(list, h('p', {class: 'note'}, 'ulp: ' + data.definition + '. Dashed: ± half an ulp.' +
      (ulp.histogram?.counts?.length && widensOutward(ulp.histogram) ? ' Bins widen outward.' : '')));
  return result;
}

function splitPanel(output, row) {
  const split = output.split;
  if (!split) return null;
  const canvas = h('canvas', {role: 'img', 'aria-label': 'Signed bias and rms of each part of the error; the table below has the figures'});
  view.pending.push(() => { view.charts[1]?.destroy(); view.charts[1] = drawSplit(canvas, split); });
  const emulated = wordOf('kind', row) === 'path';
  const number = text => h('td', {class: 'number'}, text);
  return panel('', 'Whose error it is',
      h('p', {class: 'key'}, h('span', {}, 'solid: signed bias'), h('span', {}, 'pale: rms')),
      h('div', {class: 'chart low'}, canvas),
      h('table', {},
          h('caption', {}, 'In ulp of the exact value. The parts add up element by element, and so do their biases; rms and maximum do not.'),
          h('thead', {}, h('tr', {}, h('th', {scope: 'col'}, 'part'), ...['bias', 'rms', 'max |·|'].map(t => h('th', {scope: 'col', class: 'number'}, t)))),
          h('tbody', {}, kParts.map(name => h('tr', {},
              h('th', {scope: 'row', style: 'font-weight:400'}, h('span', {class: 'swatch ' + name}), name,
                h('span', {class: 'quiet'}, {definition: ': another function', path: ': the declared casts', implementation: ': the actual bits', total: ': got against the norm'}[name])),
              ...split[name] ? [number(signedText(split[name].bias)), number(ulpText(split[name].rms)), number(maxText(split[name].max))]
                  : [h('td', {class: 'number quiet', colspan: 3}, name === 'implementation' && emulated ? 'zero by definition' : 'not recorded')])))));
}

function conformancePanel(output, row, detail) {
  const c = output.conformance;
  if (!c) return null;
  const path = wordOf('path', row);
  const where = [h('code', {}, path), detail.profile ? [' with profile ', h('code', {}, detail.profile)] : ''].flat();
  return panel('third', 'Bits of the declared path',
      c.equal === c.of ? h('p', {}, `All ${countText(c.of)} elements have the bits of `, ...where, '.')
          : h('p', {}, `${countText(c.of - c.equal)} of ${countText(c.of)} elements (${shareText(c.equal, c.of)} % equal) differ from `, ...where,
              '; the first at ', h('code', {}, indexText(c.first_difference)), '.'),
      h('p', {class: 'quiet'}, c.choice_ulp ? `The path leaves choices open that are worth up to ${maxText(c.choice_ulp)} ulp.` : 'The path leaves nothing open.'));
}

function allclosePanel(output, verdict) {
  if (!output.allclose?.length) return null;
  const number = text => h('td', {class: 'number'}, text);
  const missed = verdict === 'fail' && output.allclose.some(a => a.passes);
  return panel('third', 'What a tolerance would have said',
      h('table', {},
          h('caption', {}, 'admits: the error, in ulp, that the tolerance lets pass' + (missed ? '. It would have missed this failure.' : '.')),
          h('thead', {}, h('tr', {}, h('th', {scope: 'col'}, 'tolerance'), h('th', {scope: 'col'}, 'says'),
              h('th', {scope: 'col', class: 'number'}, 'admits, median'), h('th', {scope: 'col', class: 'number'}, 'max'))),
          h('tbody', {}, output.allclose.map(a => h('tr', {},
              h('td', {}, a.name, h('span', {class: 'title quiet', style: 'display:block;font-size:12px'}, `rtol ${a.rtol}, atol ${a.atol}`)),
              h('td', {class: a.passes ? 'pass' : 'fail'}, a.passes ? 'close' : 'not close'),
              number(ulpText(a.admits_ulp_median)), number(maxText(a.admits_ulp_max)))))));
}

const kCountNames = {compared: 'compared', nan_expected: 'NaN, expected', nan_unexpected: 'NaN, unexpected', nan_missing: 'NaN, missing',
                     inf_expected: 'Inf, expected', inf_unexpected: 'Inf, unexpected', inf_missing: 'Inf, missing', overflow: 'overflow',
                     underflow: 'underflow', subnormal: 'subnormal', undecided: 'undecided truth', unknown: 'truth not known', beyond_scale: 'beyond the scale'};
/// Which tier of the reference settled the elements, the cheapest first; all but undecided ones are proved alike.
function tiersText(tiers, undecided) {
  const names = {binary64: 'binary64', double_double: 'double-double', exact: 'exact'};
  const keys = Object.keys(names).filter(key => key in tiers);
  const all = keys.reduce((sum, key) => sum + tiers[key], undecided);
  const share = n => n === 0 ? '0' : n === all ? '100 %'
      : n / all >= 0.01 ? (Math.floor(n / all * 1e4) / 100).toFixed(2) + ' %' : String(Number((n / all * 100).toPrecision(2))) + ' %';
  return 'settled by ' + keys.map(key => `${names[key]} ${share(tiers[key])}`).join(', ') + `; undecided ${countText(undecided)}`;
}
function countsPanel(output) {
  if (!output.counts) return null;
  const keys = Object.keys(kCountNames).filter(key => key in output.counts)
      .concat(Object.keys(output.counts).filter(key => !(key in kCountNames)).sort());
  return panel('third', 'Counts of elements', pairs([['all', countText(output.elements ?? 0)],
      ...keys.map(key => [kCountNames[key] ?? key, countText(output.counts[key])])]),
      output.tiers ? h('p', {class: 'note'}, 'Exact values: ' + tiersText(output.tiers, output.counts.undecided ?? 0) + '.') : '');
}

function worstPanel(output, row) {
  if (!output.worst?.length) return null;
  const bits = text => h('td', {class: 'bits number'}, text ?? '');
  // "1.0078125 (0x1.02p+0)", either way round: the decimal, and below it the hexadecimal.
  const value = text => {
    const [, a, b] = /^(\S+) \((\S+)\)$/.exec(text ?? '') ?? [null, String(text ?? ''), ''];
    const [decimal, hex] = /^-?0x/.test(a) ? [b, a] : [a, b];
    return h('td', {class: 'bits number'}, decimal.replace('e+0', ''), hex ? h('span', {class: 'hex'}, hex) : '');
  };
  const number = text => h('td', {class: 'number'}, text);
  const kept = output.worst.length, total = columns.worst[row];
  return panel('full', 'Worst elements', h('div', {class: 'wide-table', tabindex: 0, role: 'group', 'aria-label': 'Worst elements'}, h('table', {class: 'worst'},
      h('thead', {}, h('tr', {}, h('th', {scope: 'col'}, 'at'), ...['got', 'its value', 'ideal', 'exact', 'error, ulp'].map(t => h('th', {scope: 'col', class: 'number'}, t)),
          ...kParts.slice(0, 3).map(name => h('th', {scope: 'col', class: 'number'}, h('span', {class: 'swatch ' + name}), name)))),
      h('tbody', {}, output.worst.map(w => h('tr', {}, h('td', {class: 'bits'}, indexText(w.at)), bits(w.got), value(w.got_value),
          h('td', {class: 'bits number' + (w.got === w.ideal ? ' quiet' : '')}, w.ideal ?? ''), value(w.truth),
          number(signedText(w.ulp)), ...kParts.slice(0, 3).map(name => number(signedText(w[name])))))))),
      h('p', {class: 'note'}, 'Errors in ulp: ' + data.definition + '. Signed: got above the exact value is positive. Ideal: the bits of the declared path.' +
          (kept < total ? ` The first ${kept} of ${total} recorded; run.jsonl has the rest.` : '')));
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    getSelection().selectAllChildren(button.previousSibling);
    document.execCommand('copy');
  }
  button.textContent = 'Copied';
  setTimeout(() => { button.textContent = 'Copy'; }, 1500);
}
function reproPanel(detail, row) {
  const text = Array.isArray(detail.repro) ? detail.repro.join(caseOf(row)) : detail.repro;
  if (!text) return null;
  const button = h('button', {type: 'button', onclick: () => copy(text, button)}, 'Copy');
  return panel('full', 'To repeat it', h('div', {class: 'repro'}, h('code', {}, text), button),
      detail.hashes && Object.keys(detail.hashes).length ? h('details', {class: 'context'}, h('summary', {}, 'Hashes of the tensors'), facts(detail.hashes)) : null);
}

// A stack of blocks may be deeper than its truth can be proved.
const unknownTruth = output => output.counts?.unknown > 0;
const unknownPanel = output => panel('', 'Distribution of the error',
    h('p', {class: 'note'}, `The truth of ${countText(output.counts.unknown)} elements is not known, so no figure of all can be told; what each block adds is below.`));

function showDetail(row) {
  const section = byId('detail');
  view.charts.forEach(chart => chart.destroy());
  Object.assign(view, {charts: [], pending: [], row});
  if (row < 0) {
    section.replaceChildren(h('h2', {}, 'One record'), h('p', {class: 'empty'}, 'Choose a row of the table to see its errors in full.'));
    return;
  }
  const detail = detailOf(row);
  if (detail === null) {
    section.replaceChildren(h('h2', {}, 'Record ' + hashOf(row)), h('p', {class: 'empty'}, 'Still reading the page …'));
    return;
  }
  const output = detail.output, verdict = wordOf('verdict', row), name = wordOf('output', row);
  const criteria = detail.criteria?.map(c => h('li', {class: c.held ? '' : 'fail'},
      h('span', {class: c.held ? 'pass' : 'fail'}, c.held ? '✓ ' : '✗ '), h('code', {}, c.text), ' measured ', figureText(c.measured)));
  section.replaceChildren(
      h('h2', {}, 'Record ', h('a', {href: hashOf(row)}, hashOf(row)), ' ', h('span', {class: 'verdict-cell ' + verdictClass(verdict), style: 'margin-left:.4em'}, verdict)),
      h('p', {class: 'record-line'}, caseOf(row)),
      h('p', {}, h('span', {class: 'quiet'}, wordOf('kind', row) === 'path' ? 'Emulated cast path ' : 'Implementation '), h('code', {}, subjectOf(row)),
        name ? h('span', {class: 'quiet'}, ` · output ${name}, ${output.format ?? ''} ${(output.shape ?? []).join(' × ')}`) : ''),
      detail.reason ? h('p', {class: verdict === 'measured' ? 'quiet' : verdictClass(verdict)},
          verdict === 'measured' ? 'Measured; no criterion was given, so there is no verdict.' : detail.reason) : '',
      criteria?.length ? h('ul', {class: 'criteria'}, criteria) : '',
      h('div', {class: 'panels'}, [...(unknownTruth(output) ? [unknownPanel(output)] : [distributionPanel(output, row), splitPanel(output, row)]),
        conformancePanel(output, row, detail), unknownTruth(output) ? null : allclosePanel(output, verdict), countsPanel(output), ...tracePanels(detail.trace), worstPanel(output, row), reproPanel(detail, row)].filter(Boolean)));
  redrawCharts();
}
function redrawCharts() {
  view.pending?.forEach(draw => draw());
}

function start() {
  if (state.chosen >= 0) showDetail(state.chosen);
  else if (!chooseFromAddress() && rowCount > 0) choose(0, {link: false});
  else if (rowCount === 0) showDetail(-1);
}
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => showDetail(view.row));
if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', start);
else start();
