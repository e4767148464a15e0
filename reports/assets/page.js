// The page: data, text of numbers, summary, audits, and the table of records. The panel of the chosen record is in
// detail.js. Nothing here computes an error; sums of counts and their shares are all the arithmetic there is.
'use strict';

const data = JSON.parse(document.getElementById('data').textContent);
const columns = data.rows;
const words = columns.words;
const rowCount = columns.ordinal.length;
const byId = id => document.getElementById(id);

/// h('td', {class: 'number'}, 'text', node, ...)
function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter(child => child != null && child !== ''));
  return element;
}
function svg(tag, attributes, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// ---- Numbers ----------------------------------------------------------------------------------------------

const kSpecial = {nan: NaN, inf: Infinity, '-inf': -Infinity};
/// A number of run.jsonl, where NaN and the infinities are strings; null where there is none.
function numberOf(value) {
  if (typeof value === 'string') return value in kSpecial ? kSpecial[value] : null;
  return value ?? null;
}
function ulpText(value) {
  const v = numberOf(value);
  if (v === null) return '';
  if (Number.isNaN(v)) return 'NaN';
  if (!Number.isFinite(v)) return v < 0 ? '−∞' : '∞';
  const size = Math.abs(v);
  const text = size !== 0 && (size < 0.00005 || size >= 1e6) ? size.toExponential(2).replace('e-', 'e−').replace('e+', 'e')
      : size.toFixed(size < 1000 ? 4 : 1);
  return (v < 0 ? '−' : '') + text;
}
/// A maximum is rounded up, so that 0.5000 means that no element is above one half.
function maxText(value) {
  const v = numberOf(value);
  return v !== null && v >= 0.00005 && v < 1000 ? ulpText(Math.ceil(v * 1e4) / 1e4) : ulpText(v);
}
const signedText = value => (numberOf(value) > 0 ? '+' : '') + ulpText(value);
/// A share is rounded down, so that 100 means all.
function shareText(part, whole) {
  if (part == null || !whole) return '';
  return part === whole ? '100' : (Math.floor(part / whole * 1e4) / 1e2).toFixed(2);
}
/// Whole numbers as they are, others as an error.
const figureText = value => Number.isInteger(value) ? countText(value) : ulpText(value) || String(value ?? '–');
const countText = n => n.toLocaleString('en-US').replaceAll(',', '\u202f');
const wordOf = (column, row) => words[columns[column][row]];
const caseOf = row => columns.case[row].map(id => words[id]).join(' ');
const subjectOf = row => wordOf('impl', row).replace(/^path:/, '');
/// file:FOLDER/STEM.safetensors#TENSOR@sha256-HASH in parts; null for any other name.
function recorded(name) {
  const [, file, tensor] = /^file:(?:.*\/)?([^/#]+)#([^@]+)(?:@.*)?$/.exec(name) ?? [];
  return tensor ? {file: file.replace(/\.safetensors$/, ''), tensor} : null;
}
const shortInput = name => recorded(name)?.tensor ?? name;
/// A recorded output without its folder, and without its tensor where the input tells it: layers.0.norm.x gives layers.0.norm.y.
function shortSubject(row) {
  const output = recorded(wordOf('impl', row)), input = recorded(wordOf('input', row));
  if (!output) return subjectOf(row);
  const site = tensor => tensor?.slice(0, tensor.lastIndexOf('.'));
  return 'file:' + output.file + (site(output.tensor) === site(input?.tensor) ? '' : '#' + output.tensor);
}
const verdictClass = verdict => verdict === 'skip' ? 'skip-verdict' : verdict;

// ---- Summary and context ----------------------------------------------------------------------------------

// "measured" is what page.cpp makes of a skip whose only reason is that no criterion was given.
const kVerdicts = ['pass', 'fail', 'skip', 'vacuous', 'crashed', 'measured'];
const kWorstFirst = ['crashed', 'fail', 'vacuous', 'skip', 'pass', 'measured'];

function conformance(selected) {
  let equal = 0, of = 0, records = 0;
  for (let row = 0; row < rowCount; ++row) {
    if (columns.of[row] == null || !selected(wordOf('kind', row))) continue;
    equal += columns.equal[row];
    of += columns.of[row];
    ++records;
  }
  return {equal, of, records};
}

function drawSummary() {
  const verdictOfRecord = new Map();
  for (let row = 0; row < rowCount; ++row) {
    const record = columns.ordinal[row] ?? 'row' + row, verdict = wordOf('verdict', row);
    // Outputs that no criterion is about are measured only; the record's verdict is the others'.
    if (verdict !== 'measured' || !verdictOfRecord.has(record)) verdictOfRecord.set(record, verdict);
  }
  const counts = {};
  for (const verdict of verdictOfRecord.values()) counts[verdict] = (counts[verdict] ?? 0) + 1;
  const summary = byId('summary');
  summary.append(h('span', {}, h('b', {}, countText(verdictOfRecord.size)), ' records'));
  for (const verdict of [...kVerdicts, ...Object.keys(counts).filter(v => !kVerdicts.includes(v))]) {
    const n = counts[verdict] ?? 0;
    if (n === 0 && verdict === 'measured') continue;
    const text = [countText(n), ' ', verdict === 'measured' ? 'measured, no criterion' : verdict];
    summary.append(h('span', {class: n ? verdictClass(verdict) : 'quiet'},
        n ? h('button', {class: 'link', title: 'Show these', onclick: () => showOnly({verdict})}, ...text) : h('span', {}, ...text)));
  }
  const sentences = [];
  for (const [title, selected] of [['Recorded outputs', kind => kind === 'file'],
                                   ['Other implementations', kind => kind !== 'file' && kind !== 'path']]) {
    const {equal, of, records} = conformance(selected);
    if (of) sentences.push(`${title}: ${shareText(equal, of)} % of ${countText(of)} elements in ${countText(records)} ` +
        `${records === 1 ? 'output' : 'outputs'} have the bits of the declared cast path.`);
  }
  if (sentences.length) summary.append(h('span', {class: 'sentence'}, sentences.join(' ')));
}

function facts(value) {
  const pairs = item => Object.entries(item).map(([k, v]) => `${k} ${v ?? '–'}`);
  return h('dl', {class: 'facts'}, Object.entries(value).filter(([, item]) => item !== undefined && item !== '').flatMap(([key, item]) => [
    h('dt', {}, key),
    item !== null && typeof item === 'object' && !Array.isArray(item) && Object.values(item).some(v => String(v).length > 40)
        ? h('dd', {}, pairs(item).map(line => h('div', {}, line)))
        : h('dd', {}, item === null ? '–' : Array.isArray(item) ? item.join(' ') : typeof item === 'object' ? pairs(item).join(' · ') : String(item))]));
}

/// The facts of a context in the order in which they are asked for; what else it holds comes last.
function contextFacts({kind, schema, volatile, norma, ...top}) {
  const {command, ...rest} = {...top, ...volatile};
  const {commit, compiler, flags, platform, libraries, jobs, shard, units, total, ...others} = rest;
  const words = Array.isArray(command) ? command.map(word => /^[\w@%+=:,./#-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`) : [command];
  const line = words.filter(Boolean).join(' ');
  return {norma: norma?.version, commit: norma?.commit ?? commit, command: line && (line.startsWith('norma ') ? line : 'norma ' + line),
          compiler, flags, platform, libraries, jobs, shard: shard ?? undefined, records: total, ...others, units};
}

function drawContext() {
  const context = byId('context');
  if (data.contexts.length === 0) { context.remove(); return; }
  const all = data.contexts.map(contextFacts), first = all[0];
  const line = ['norma ' + (first.norma ?? ''), first.commit, first.compiler, first.platform?.cpu, first.platform?.gpu].filter(Boolean).join(' · ');
  context.querySelector('summary').textContent = 'Made with ' + line + (all.length > 1 ? ` and ${all.length - 1} more` : '');
  context.querySelector('div').replaceWith(...all.map(facts));
}

// ---- Audits -----------------------------------------------------------------------------------------------

const kLaneWidth = 250;
const kPathsShown = 12;

/// Where a figure lies on a logarithmic axis that all these rows share; what is beyond it stands at its end.
function laneScale(ranking) {
  const finite = ranking.flatMap(r => [r.max_ulp, r.rms_ulp, r.floor_ulp]).map(numberOf).filter(v => v > 0 && v < Infinity);
  const low = Math.min(0.25, ...finite), high = Math.max(1, ...finite);
  const from = Math.floor(Math.log2(low)), to = Math.ceil(Math.log2(high) + 0.01);
  const at = value => {
    const v = numberOf(value);
    if (v === null || Number.isNaN(v)) return null;
    return Math.min(1, Math.max(0, (Math.log2(Math.max(v, 2 ** from)) - from) / (to - from))) * (kLaneWidth - 16) + 8;
  };
  const step = Math.max(1, Math.ceil((to - from) / 6));
  const ticks = [];
  for (let e = from; e <= to; e += step) ticks.push(e);
  return {at, beyond: value => numberOf(value) > 2 ** to, ticks: ticks.map(e => ({x: at(2 ** e), text: e >= 0 ? String(2 ** e) : e >= -3 ? String(2 ** e) : '2^−' + -e}))};
}
function laneAxis(scale) {
  return svg('svg', {width: kLaneWidth, height: 14, 'aria-hidden': 'true'},
      ...scale.ticks.map(tick => svg('text', {x: tick.x, y: 11}, tick.text)));
}
function lane(scale, row) {
  const marks = scale.ticks.map(tick => svg('line', {x1: tick.x, x2: tick.x, y1: -5, y2: 199}));
  const max = scale.at(row.max_ulp), rms = scale.at(row.rms_ulp), floor = scale.at(row.floor_ulp);
  if (floor !== null) marks.push(svg('line', {class: 'floor', x1: floor, x2: floor, y1: 1, y2: 19}));
  if (max !== null && rms !== null) marks.push(svg('line', {class: 'span', x1: rms, x2: max, y1: 10, y2: 10}));
  if (rms !== null && !scale.beyond(row.rms_ulp)) marks.push(svg('circle', {class: 'rms', cx: rms, cy: 10, r: 3.5}));
  if (max !== null) marks.push(scale.beyond(row.max_ulp) ? svg('path', {class: 'max', d: `M${max - 3} 6l6 4l-6 4z`})
      : svg('circle', {class: 'max', cx: max, cy: 10, r: 3.5}));
  return svg('svg', {width: kLaneWidth, height: 20, role: 'img', 'aria-label':
      `rms ${ulpText(row.rms_ulp)}, maximum ${maxText(row.max_ulp)}, floor ${ulpText(row.floor_ulp)} ulp`}, ...marks);
}

const kLegend = '● rms, ○ maximum, | floor: the maximum, measured on these tensors, that is left when only the path’s casts to ' +
    'formats narrower than fp32 and the rounding of the output are kept and all other arithmetic is exact';
const kFloorTip = 'Maximum with only the casts narrower than fp32 and the output’s rounding kept, all else exact';

/// The ranking of an audit as the page shows it: first the paths that compute the same function into the same format
/// as the path in use, then the others, each part in the order given.
function split(audit) {
  const used = audit.ranking.find(row => row.declared);
  const format = used?.format ?? audit.ranking.find(row => !row.gap)?.format;
  const alike = audit.ranking.filter(row => !row.gap && row.format === format);
  return {used, alike, others: audit.ranking.filter(row => !alike.includes(row)), format};
}

function pathRow(row, rank, scale, {hidden, hasGiven, foreign}) {
  const number = text => h('td', {class: 'number'}, text);
  const source = row.source?.replace(/\s*@$/, '').replace(/ @(?=#|.* )/, ', ');
  return h('tr', {hidden, class: [row.declared && 'used', foreign && 'other'].filter(Boolean).join(' ') || null},
      number(String(rank)),
      h('td', {class: 'name'}, h('button', {class: 'link', title: 'Show its records', onclick: () => showOnly({text: row.path})},
            h('code', {}, row.path)),
        row.declared ? h('span', {class: 'in-use'}, 'in use') : '',
        row.gap ? h('span', {class: 'gap'}, row.gap) : '',
        foreign && row.format && row.format !== foreign ? h('span', {class: 'gap'}, 'output in ' + row.format) : '',
        h('span', {class: 'title'}, [row.title, source].filter(Boolean).join(' · '))),
      h('td', {class: 'lane'}, lane(scale, row)),
      number(maxText(row.max_ulp)), number(maxText(row.floor_ulp)), number(ulpText(row.rms_ulp)),
      number(ulpText(row.mean_abs_ulp)), number(signedText(row.bias_ulp)),
      number(shareText(row.correct_share, 1)), hasGiven ? number(row.equal_share == null ? '' : shareText(row.equal_share, 1)) : null);
}

/// The rows of one part of a ranking: the first, a row to unfold the rest, and the path in use wherever it ranks.
function foldedRows(list, shown, label, row) {
  const rows = list.map((item, i) => row(item, i, i >= shown && !item.declared));
  const hidden = rows.filter(r => r.hidden);
  if (hidden.length === 0) return rows;
  const unfold = h('tr', {class: 'unfold'}, h('td', {colspan: rows[0].cells.length}, h('button', {type: 'button', 'aria-expanded': 'false', onclick: () => {
    hidden.forEach(r => { r.hidden = false; });
    unfold.remove();
    hidden[0].querySelector('button').focus({preventScroll: true});
  }}, label(hidden.length))));
  return [...rows.slice(0, shown), unfold, ...rows.slice(shown)];
}

function drawAudit(audit) {
  const {used, alike, others, format} = split(audit);
  const scale = laneScale(alike.length ? [...alike, ...used ? [used] : []] : audit.ranking);
  const hasGiven = audit.ranking.some(row => row.equal_share != null);
  const width = hasGiven ? 10 : 9;
  const paths = n => `${n} ${n === 1 ? 'path' : 'paths'}`;
  const right = (text, title) => h('th', {class: 'number', scope: 'col', title}, text);
  return h('div', {class: 'audit'},
      h('h3', {}, 'On ', h('code', {}, audit.input)),
      audit.advice ? h('p', {class: 'advice'}, audit.advice) : null,
      h('div', {class: 'wide-table', tabindex: 0, role: 'group', 'aria-label': 'Cast paths ranked on ' + audit.input}, h('table', {},
          h('thead', {}, h('tr', {}, right('', 'Rank'), h('th', {scope: 'col'}, 'cast path'),
              h('th', {scope: 'col', class: 'lane', 'aria-label': 'rms and maximum'}, laneAxis(scale)),
              right('max'), right('floor', kFloorTip), right('rms'), right('mean |·|', 'Mean of the absolute error'), right('bias', 'Signed mean'),
              right('correct %', 'Elements that are rounded correctly'), hasGiven ? right('equal %', 'Elements of the given output with the bits of the path') : null)),
          h('tbody', {}, foldedRows(alike, kPathsShown, n => `Show ${n} more ${n === 1 ? 'path' : 'paths'}`,
              (row, i, hidden) => pathRow(row, i + 1, scale, {hidden, hasGiven}))),
          others.length ? h('tbody', {class: 'others'},
              h('tr', {}, h('th', {colspan: width, scope: 'rowgroup'}, 'another function, or another output format')),
              foldedRows(others, alike.length ? 0 : kPathsShown, n => `Show ${paths(n)}`,
                  (row, i, hidden) => pathRow(row, alike.length + i + 1, scale, {hidden, hasGiven, foreign: format ?? ''}))) : null)),
      h('p', {class: 'note'}, 'All figures in ulp: ' + data.definition + '. In the lane: ' + kLegend + '.' +
          (others.length ? ' What another function errs by its definition no rounding explains.' : '')));
}

const sites = {chosen: -1, rows: []};

/// One line a site: what is in use there, how far off it is, and what the best path of the same format would reach.
function drawOverview() {
  const parts = data.audits.map(split);
  // The run names the path to change to among those that are as good; the first of the ranking where it does not.
  const bestOf = (audit, alike) => alike.find(row => row.path === audit.best) ?? alike[0];
  const bests = parts.map(({alike}, i) => bestOf(data.audits[i], alike));
  const scale = laneScale(parts.flatMap(({used}, i) => [used, bests[i]].filter(Boolean)));
  const right = (text, title) => h('th', {class: 'number', scope: 'col', title}, text);
  const number = text => h('td', {class: 'number'}, text);
  const hasGiven = parts.some(({used}) => used?.equal_share != null);
  const equals = (best, alike) => alike.filter(row => row !== best && row.rms_ulp === best.rms_ulp && row.max_ulp === best.max_ulp).length;
  const tied = n => n ? h('span', {class: 'quiet', title: `${n} more with the same figures`}, ' +' + n) : '';
  sites.rows = parts.map(({used, alike}, i, _, best = bests[i]) => h('tr', {onclick: event => { event.preventDefault(); showSite(i); }},
      h('td', {}, h('a', {href: `#site-${i + 1}`}, data.audits[i].input)),
      h('td', {class: used ? null : 'quiet'}, used ? h('code', {}, used.path) : 'not told'),
      h('td', {class: 'lane'}, used ? lane(scale, used) : ''),
      ...used ? [number(maxText(used.max_ulp)), number(maxText(used.floor_ulp)), number(ulpText(used.rms_ulp))] : [number(''), number(''), number('')],
      hasGiven ? number(used?.equal_share == null ? '' : shareText(used.equal_share, 1)) : null,
      h('td', {class: 'first'}, best ? best === used ? h('span', {class: 'quiet'}, 'the one in use') : [h('code', {}, best.path), tied(equals(best, alike))] : ''),
      number(best ? maxText(best.max_ulp) : ''), number(best ? ulpText(best.rms_ulp) : '')));
  const body = h('tbody', {}, sites.rows);
  body.addEventListener('keydown', event => {
    const last = sites.rows.length - 1;
    const to = {ArrowDown: Math.min(last, sites.chosen + 1), ArrowUp: Math.max(0, sites.chosen - 1), Home: 0, End: last}[event.key];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    showSite(to);
    sites.rows[to].querySelector('a').focus();
  });
  return [h('div', {class: 'scroller wide-table overview', role: 'group', 'aria-label': 'Sites'}, h('table', {},
      h('thead', {}, h('tr', {}, h('th', {scope: 'col'}, countText(parts.length) + ' sites'), h('th', {scope: 'col'}, 'path in use'),
          h('th', {scope: 'col', class: 'lane', 'aria-label': 'rms and maximum'}, laneAxis(scale)),
          right('max'), right('floor', kFloorTip), right('rms'),
          hasGiven ? right('equal %', 'Elements of the recorded output with the bits of the path in use') : null,
          h('th', {scope: 'col', class: 'first', title: 'Of those that compute the same function into the same format'}, 'best path'), right('max'), right('rms'))),
      body)), h('p', {class: 'note'}, 'Choose a site by a click or by the arrow keys; its ranking is below. Errors in ulp.')];
}

function showSite(index, {link = true, near = true} = {}) {
  const site = byId('site');
  if (!site || !(index >= 0 && index < data.audits.length)) return false;
  sites.chosen = index;
  sites.rows.forEach((row, i) => {
    row.classList.toggle('chosen', i === index);
    const anchor = row.querySelector('a');
    anchor.tabIndex = i === index ? 0 : -1;
    if (i === index) anchor.setAttribute('aria-current', 'true');
    else anchor.removeAttribute('aria-current');
  });
  site.replaceChildren(drawAudit(data.audits[index]));
  if (link) history.replaceState(null, '', `#site-${index + 1}`);
  if (near) site.querySelector('table').rows[Math.min(3, site.querySelector('table').rows.length - 1)].scrollIntoView({block: 'nearest'});
  return true;
}

function drawAudits() {
  const section = byId('audits');
  if (data.audits.length === 0) { section.remove(); return; }
  section.append(h('h2', {}, 'Which cast path is best on these inputs?'), ...data.audits.length > 1 ? drawOverview() : [],
      h('div', {id: 'site', 'aria-live': 'polite'}));
  showSite(0, {link: false, near: false});
}

// ---- The table --------------------------------------------------------------------------------------------

const part = name => ({class: name});
const hasRecorded = columns.input.some(id => recorded(words[id]));
const hasOutputs = columns.output.some(id => words[id] !== '' && words[id] !== 'y');
const kTable = [
  {key: 'ordinal', title: '#', width: 46, number: true, text: row => columns.ordinal[row] ?? '', value: row => columns.ordinal[row]},
  {key: 'verdict', title: 'verdict', width: columns.verdict.some(id => words[id] === 'measured') ? 98 : 80, word: 'verdict'},
  ...hasRecorded && new Set(columns.norm).size === 1 ? [] : [{key: 'norm', title: 'norm', width: 76, word: 'norm'}],
  {key: 'subject', title: 'path or implementation', width: 0, word: 'impl'},
  ...hasOutputs ? [{key: 'output', title: 'output', width: 58, word: 'output'}] : [],
  {key: 'format', title: 'format', width: 64, word: 'format'},
  {key: 'shape', title: 'shape', width: 66, word: 'shape'},
  {key: 'input', title: 'input', width: hasRecorded ? 218 : 122, word: 'input'},
  {key: 'max', title: 'max', width: 68, group: 'error, ulp', text: row => maxText(columns.max[row])},
  {key: 'rms', title: 'rms', width: 66, group: 'error, ulp', text: row => ulpText(columns.rms[row])},
  {key: 'bias', title: 'bias', width: 70, group: 'error, ulp', text: row => signedText(columns.bias[row]), signed: true},
  {key: 'definition', title: 'definition', width: 88, group: 'its bias, part by part, ulp', signed: true, swatch: 'definition',
   text: row => signedText(columns.definition[row])},
  {key: 'path_bias', title: 'path', width: 70, group: 'its bias, part by part, ulp', signed: true, swatch: 'path',
   text: row => signedText(columns.path_bias[row])},
  {key: 'implementation', title: 'implem.', width: 78, group: 'its bias, part by part, ulp', signed: true, swatch: 'implementation',
   text: row => signedText(columns.implementation[row])},
  {key: 'correct', title: 'correct', width: 62, group: 'elements, %', tip: 'Rounded correctly: the format holds no value nearer to the truth',
   text: row => shareText(columns.correct[row], columns.compared[row]), value: row => share(columns.correct[row], columns.compared[row])},
  {key: 'equal', title: 'equal bits', width: 78, group: 'elements, %', tip: 'Bits equal to those of the declared cast path',
   text: row => shareText(columns.equal[row], columns.of[row]), value: row => share(columns.equal[row], columns.of[row])},
];
for (const column of kTable)
  if (!column.word) {
    column.number = true;
    column.value ??= row => numberOf(columns[column.key][row]);
  }
function share(part, whole) { return part == null || !whole ? null : part / whole; }

const state = {order: new Int32Array(0), sort: 'verdict', descending: false, chosen: -1, place: -1, terms: []};
const body = byId('body'), scroller = byId('scroller'), table = byId('table');
const kRowHeight = 28, kOverscan = 8;

function drawHead() {
  const groups = h('tr', {}), titles = h('tr', {});
  let open = null;
  kTable.forEach((column, i) => {
    if (column.group === undefined) groups.append(h('td', {}));
    else if (open?.group === column.group) open.cell.colSpan += 1;
    else {
      open = {group: column.group, cell: h('th', {class: 'group first', colspan: 1, scope: 'colgroup'}, column.group)};
      groups.append(open.cell);
    }
    column.first = column.group !== undefined && kTable[i - 1].group !== column.group;
    column.class = [column.number && 'number', column.first && 'first'].filter(Boolean).join(' ');
    column.head = h('th', {scope: 'col', class: column.class, 'aria-sort': 'none'},
        h('button', {class: 'sort', type: 'button', title: (column.tip ?? '') + (column.signed ? 'Sorts by size, whatever the sign' : '') || null,
                     onclick: () => sortBy(column)},
          column.swatch ? h('span', {class: 'swatch ' + column.swatch}) : null, column.title));
    titles.append(column.head);
  });
  groups.querySelectorAll('td').forEach(cell => cell.replaceWith(h('th', {'aria-hidden': 'true'})));
  byId('head').append(groups, titles);
  if (hasRecorded) table.classList.add('wider');
  table.prepend(h('colgroup', {}, kTable.map(column => h('col', column.width ? {style: `width:${column.width}px`} : {}))));
  byId('units').append('All figures in ulp: ' + data.definition + '. Bias is the signed mean; ',
      h('span', part('definition'), h('span', {class: 'swatch'}), 'definition'), ': the code means another function than the norm; ',
      h('span', part('path'), h('span', {class: 'swatch'}), 'path'), ': what the declared casts cost; ',
      h('span', part('implementation'), h('span', {class: 'swatch'}), 'implementation'),
      ': what the actual bits differ from the path’s, zero by definition for an emulated path. The three biases add up to the bias.');
}

/// Sort keys as doubles; nothing is NaN here: a recorded NaN is above infinity, and a missing figure is last.
function sortKeys(column) {
  const keys = new Float64Array(rowCount);
  if (column.key === 'verdict') {
    for (let row = 0; row < rowCount; ++row) keys[row] = kWorstFirst.indexOf(wordOf('verdict', row));
  } else if (column.word) {
    const rank = new Float64Array(words.length);
    const collator = new Intl.Collator('en', {numeric: true});
    const used = [...new Set(columns[column.word])];
    used.sort((a, b) => collator.compare(words[a].replace(/^path:/, ''), words[b].replace(/^path:/, ''))).forEach((id, i) => { rank[id] = i; });
    for (let row = 0; row < rowCount; ++row) keys[row] = rank[columns[column.word][row]];
  } else {
    for (let row = 0; row < rowCount; ++row) {
      let v = column.value(row);
      if (v === null || v === undefined) { keys[row] = -Infinity; continue; }
      if (column.signed) v = Math.abs(v);
      keys[row] = Number.isNaN(v) ? Infinity : Math.min(Math.max(v, -Number.MAX_VALUE), Number.MAX_VALUE);
    }
  }
  return keys;
}
const keysOf = new Map();
function cachedKeys(key) {
  if (!keysOf.has(key)) keysOf.set(key, sortKeys(kTable.find(column => column.key === key)));
  return keysOf.get(key);
}

function arrange() {
  const selects = ['verdict', 'norm', 'format', 'input', 'kind'].map(name => [columns[name], Number(byId('filter-' + name).value)])
      .filter(([, id]) => id >= 0);
  const matches = state.terms.map(term => words.map(word => word.toLowerCase().includes(term)));
  const found = [];
  for (let row = 0; row < rowCount; ++row) {
    if (!selects.every(([column, id]) => column[row] === id)) continue;
    if (matches.every(match => match[columns.impl[row]] || match[columns.path[row]] || match[columns.output[row]] ||
        match[columns.verdict[row]] || columns.case[row].some(id => match[id]))) found.push(row);
  }
  const keys = cachedKeys(state.sort), severity = cachedKeys('verdict'), max = cachedKeys('max');
  const sign = state.descending ? -1 : 1;
  state.order = Int32Array.from(found).sort((a, b) => {
    const x = keys[a], y = keys[b];
    if (x !== y) return x === -Infinity ? 1 : y === -Infinity ? -1 : sign * (x < y ? -1 : 1);
    return severity[a] - severity[b] || (max[a] < max[b] ? 1 : max[a] > max[b] ? -1 : a - b);
  });
  state.place = state.order.indexOf(state.chosen);
  for (const column of kTable)
    column.head.setAttribute('aria-sort', column.key !== state.sort ? 'none' : state.descending ? 'descending' : 'ascending');
  table.setAttribute('aria-rowcount', state.order.length + 2);
  byId('found').textContent = found.length === rowCount ? `${countText(rowCount)} rows` : `${countText(found.length)} of ${countText(rowCount)} rows`;
  drawRows(true);
}

function sortBy(column) {
  if (state.sort === column.key) state.descending = !state.descending;
  else { state.sort = column.key; state.descending = Boolean(column.number && column.key !== 'ordinal'); }
  arrange();
  scroller.scrollTop = 0;
}

function drawRow(place) {
  const row = state.order[place];
  const verdict = wordOf('verdict', row), path = wordOf('path', row), kind = wordOf('kind', row);
  const cells = kTable.map(column => {
    if (column.key === 'verdict') return h('td', {class: 'verdict-cell ' + verdictClass(verdict)}, verdict);
    if (column.key === 'subject') {
      const against = kind !== 'path' && path ? path : '';
      return h('td', {class: 'subject', title: subjectOf(row) + (against ? `, judged by ${against}` : '')}, shortSubject(row),
          against ? h('span', {class: 'quiet'}, '  ▸ ' + against) : '');
    }
    if (column.key === 'input') return h('td', {title: wordOf('input', row)}, shortInput(wordOf('input', row)));
    const text = column.word ? wordOf(column.word, row) : column.text(row);
    return h('td', {class: column.class || null}, String(text));
  });
  return h('tr', {id: 'row-' + row, role: 'row', 'aria-rowindex': place + 3, 'aria-selected': row === state.chosen ? 'true' : 'false',
                  'data-place': place}, cells);
}

let drawn = {from: -1, to: -1};
/// Draws the rows that are in sight, between two spacers as high as the rest.
function drawRows(again, from, to) {
  const top = scroller.scrollTop, count = state.order.length;
  from ??= Math.max(0, Math.floor(top / kRowHeight) - kOverscan);
  // As high as it may become: before there are rows it is flat.
  to ??= Math.min(count, Math.ceil((top + Math.max(scroller.clientHeight, Math.min(innerHeight, 620))) / kRowHeight) + kOverscan);
  if (!again && from === drawn.from && to === drawn.to) return;
  drawn = {from, to};
  const spacer = height => h('tr', {class: 'spacer', 'aria-hidden': 'true'}, h('td', {colspan: kTable.length, style: `height:${height}px`}));
  const rows = [];
  if (from > 0) rows.push(spacer(from * kRowHeight));
  for (let place = from; place < to; ++place) rows.push(drawRow(place));
  if (to < count) rows.push(spacer((count - to) * kRowHeight));
  if (count === 0) rows.push(h('tr', {}, h('td', {colspan: kTable.length, class: 'nothing'}, 'No record matches the filter.')));
  body.replaceChildren(...rows);
  if (state.chosen >= 0 && byId('row-' + state.chosen)) table.setAttribute('aria-activedescendant', 'row-' + state.chosen);
  else table.removeAttribute('aria-activedescendant');
}

// ---- Choosing ---------------------------------------------------------------------------------------------

function hashOf(row) {
  const output = wordOf('output', row);
  const ordinal = columns.ordinal[row] ?? 'row' + row;
  return '#' + ordinal + (output && output !== 'y' ? '.' + output : '');
}

function choose(place, {scroll = true, link = true} = {}) {
  if (state.order.length === 0) return;
  state.place = Math.max(0, Math.min(place, state.order.length - 1));
  state.chosen = state.order[state.place];
  if (scroll) {
    const head = byId('head').offsetHeight, y = state.place * kRowHeight;
    if (y < scroller.scrollTop) scroller.scrollTop = y;
    else if (y + kRowHeight > scroller.scrollTop + scroller.clientHeight - head - 2) scroller.scrollTop = y + kRowHeight - scroller.clientHeight + head + 2;
  }
  drawRows(true);
  if (link) history.replaceState(null, '', hashOf(state.chosen));
  showDetail(state.chosen);
}

function chooseFromAddress() {
  const hash = decodeURIComponent(location.hash);
  const [, site] = /^#site-(\d+)$/.exec(hash) ?? [];
  if (site && showSite(Number(site) - 1, {link: false, near: false})) { byId('audits').scrollIntoView(); return false; }
  if (!/^#(row)?\d/.test(hash)) return false;
  for (let row = 0; row < rowCount; ++row) {
    if (hashOf(row) !== hash) continue;
    if (state.order.indexOf(row) < 0) { byId('filters').reset(); readFilters(); }
    choose(state.order.indexOf(row), {link: false});
    return true;
  }
  return false;
}

function readFilters() {
  state.terms = byId('filter-text').value.toLowerCase().split(/\s+/).filter(Boolean);
  scroller.scrollTop = 0;
  arrange();
}
/// showOnly({verdict: 'fail'}) or showOnly({text: 'flux'})
function showOnly({text, ...selected}) {
  byId('filters').reset();
  if (text) byId('filter-text').value = text;
  for (const [name, word] of Object.entries(selected)) byId('filter-' + name).value = words.indexOf(word);
  readFilters();
  byId('records').scrollIntoView({block: 'start'});
}

function drawFilters() {
  for (const name of ['verdict', 'norm', 'format', 'input', 'kind']) {
    const used = [...new Set(columns[name])].sort((a, b) => words[a] < words[b] ? -1 : 1);
    const several = name === 'input' && new Set(used.map(id => recorded(words[id])?.file)).size > 1;
    const tensor = id => (found => several ? `${found.tensor}, ${found.file}` : found.tensor)(recorded(words[id]));
    byId('filter-' + name).append(h('option', {value: -1}, 'any'), ...used.map(id => h('option', {value: id},
        name === 'input' && recorded(words[id]) ? tensor(id) : name === 'kind' && words[id] === 'path' ? 'path (emulated)' : name === 'kind' && words[id] === 'file' ? 'file (recorded)' : words[id] || '–')));
  }
  const form = byId('filters');
  form.addEventListener('input', readFilters);
  form.addEventListener('submit', event => event.preventDefault());
  form.addEventListener('reset', () => setTimeout(readFilters));
}

function listen() {
  let asked = false;
  scroller.addEventListener('scroll', () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; drawRows(false); });
  }, {passive: true});
  body.addEventListener('click', event => {
    const row = event.target.closest('tr[data-place]');
    if (row) choose(Number(row.dataset.place), {scroll: false});
  });
  const page = () => Math.max(1, Math.floor((scroller.clientHeight - byId('head').offsetHeight) / kRowHeight) - 1);
  table.addEventListener('keydown', event => {
    if (event.target !== table || event.ctrlKey || event.metaKey || event.altKey) return;
    const place = {ArrowDown: state.place + 1, ArrowUp: state.place - 1, PageDown: state.place + page(), PageUp: state.place - page(),
                   Home: 0, End: state.order.length - 1}[event.key];
    if (place === undefined) return;
    event.preventDefault();
    choose(place);
  });
  document.addEventListener('keydown', event => {
    if (event.key !== '/' || event.ctrlKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    event.preventDefault();
    byId('filter-text').focus();
  });
  addEventListener('hashchange', chooseFromAddress);
  addEventListener('resize', () => drawRows(false));
  // On paper there is no scrolling; more rows than fit a stack of paper are counted instead.
  const kPrinted = 500;
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const onPaper = yes => {
    if (!dark.matches) return;
    document.documentElement.classList.toggle('on-paper', yes);
    redrawCharts();
  };
  addEventListener('beforeprint', () => {
    onPaper(true);
    const n = Math.min(kPrinted, state.order.length);
    byId('print-note').textContent = n < state.order.length ? `The first ${n} of ${state.order.length} rows; filter to print others.` : '';
    drawRows(true, 0, n);
    body.querySelectorAll('.spacer').forEach(row => row.remove());
  });
  addEventListener('afterprint', () => { onPaper(false); drawRows(true); });
}

drawSummary();
drawContext();
drawAudits();
drawHead();
drawFilters();
arrange();
listen();
