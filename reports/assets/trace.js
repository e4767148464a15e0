// The panels of a block's trace: what error enters, what each site adds, what leaves; of a stack the same block after block.

const percentText = v => v == null ? '–' : (100 * v).toFixed(v < 0.0995 ? 1 : 0) + ' %';
const relativeText = v => {
  const n = numberOf(v);
  return !Number.isFinite(n) ? (v == null ? '–' : '∞') : n === 0 ? '0' : n.toExponential(2).replace('-', '−');
};

// `steps`: what has entering, added and leaving; `fits`: further lines, one figure a step.
function drawTrace(canvas, names, steps, fits = []) {
  const shown = values => values.map(v => (v > 0 && Number.isFinite(v) ? v : null));
  const series = key => shown(steps.map(step => numberOf(step[key].relative_l2)));
  const all = ['entering', 'added', 'leaving'].flatMap(series).filter(v => v !== null);
  const low = 10 ** Math.floor(Math.log10(Math.min(...all, 1))), high = 10 ** Math.ceil(Math.log10(Math.max(...all, 1e-12)));
  const options = chartOptions({
    x: {grid: {display: false}, ticks: {autoSkip: names.length > 60, maxRotation: 60, minRotation: names.every(name => name.length < 4) ? 0 : 40, callback: i => names[i]}},
    y: {type: 'logarithmic', min: low, max: high, title: {text: 'error / truth, Euclidean'},
        ticks: {callback: v => /^1(e|0*$|\.?0*e)/.test(String(v)) || Math.log10(v) % 1 === 0 ? relativeText(v).replace('.00', '') : null}},
  }, {title: items => names[items[0].dataIndex], label: item => `${item.dataset.label} ${relativeText(item.parsed.y)}`});
  const line = (label, data, colour, dash, width = 2) => ({type: 'line', label, data, borderColor: colour, backgroundColor: colour, borderWidth: width,
                                                           borderDash: dash, pointRadius: width === 2 ? 2.5 : 0, spanGaps: true});
  return new Chart(canvas, {type: 'bar', options, data: {labels: names.map((_, i) => i), datasets: [
    line('leaving', series('leaving'), style('--ink'), []), line('entering', series('entering'), style('--quiet'), [4, 3]),
    ...fits.map(fit => line(fit.label, shown(fit.values), style('--quiet'), fit.dash, 1)),
    {label: 'added', data: series('added'), backgroundColor: style('--path'), barPercentage: 0.7, categoryPercentage: 0.9}]}});
}

// Charts 0 and 1 are the output's own.
let traceCharts = 2;
function traceChart(label, draw) {
  const canvas = h('canvas', {role: 'img', 'aria-label': label}), place = traceCharts++;
  view.pending.push(() => { view.charts[place]?.destroy(); view.charts[place] = draw(canvas); });
  return h('div', {class: 'chart tall'}, canvas);
}

const traceKey = (...more) => h('p', {class: 'key'}, h('span', {}, h('span', {class: 'swatch path'}), 'bars: added here'), h('span', {}, 'line: leaving'),
                                h('span', {}, 'dashed: entering'), ...more.map(text => h('span', {}, text)));

function growthPanel(stream) {
  const {linear, root, exponent} = stream.fit, blocks = stream.blocks;
  const fitted = (fit, of) => blocks.map((_, i) => numberOf(fit.factor) * of(i + 1));
  const carried = blocks.find(block => block.carried);
  const misfit = fit => `${relativeText(fit.factor)} (misfit ${percentText(fit.misfit)})`;
  return panel('full', blocks.length > 1 ? `${stream.stream}, block after block` : stream.stream,
      traceKey('dotted: c √k', 'fine: c k'),
      traceChart(`Relative error of ${stream.stream} after each of ${blocks.length} blocks`, canvas => drawTrace(canvas, blocks.map(b => String(b.block)), blocks,
          [{label: 'c √k', values: fitted(root, Math.sqrt), dash: [1, 3]}, {label: 'c k', values: fitted(linear, k => k), dash: []}])),
      h('p', {class: 'note'}, `After k blocks: c √k with c = ${misfit(root)}; c k with c = ${misfit(linear)}; the best power is k^${exponent == null ? '–' : numberOf(exponent).toFixed(2)}. ` +
          'Entering: the error that a block is given, carried through it. Added: its own, on what it was given. ' +
          (carried ? `From block ${carried.block} on the truth begins with the midpoints of the block before: each block is certified, the stack is not.`
                   : `The truth is certified throughout: its radius after the last block is ${relativeText(blocks.at(-1).uncertainty)}.`)));
}

const kSitesShown = 60;

function tracePanels(trace) {
  if (!trace?.sites?.length) return [];
  traceCharts = 2;
  return [...(trace.growth ?? []).map(growthPanel), sitesPanel(trace)];
}

function sitesPanel(trace) {
  const sites = trace.sites, many = sites.length > kSitesShown;
  const number = text => h('td', {class: 'number'}, text);
  const heads = ['added', 'entering', 'leaving', 'largest, ulp', 'in common', 'gain', 'open truth'];
  const broken = site => [site.nan && `${countText(site.nan)} NaN`, site.infinite && `${countText(site.infinite)} Inf`,
                          site.clipped && `${countText(site.clipped)} clipped`, site.open && `${countText(site.open)} not known`,
                          site.differing && `${countText(site.differing)} other bits`].filter(Boolean).join(', ');
  const shown = [...sites].sort((a, b) => a.rank - b.rank).slice(0, kSitesShown);
  return panel('full', 'Site by site',
      ...(trace.first_special ? [h('p', {class: 'fail'}, 'NaN, Inf or a clipped number is first stored at ', h('code', {}, trace.first_special), '.')] : []),
      ...(many ? [] : [traceKey(), traceChart('Relative error that enters, is added and leaves at each site of the block; the table below has the figures',
          canvas => drawTrace(canvas, sites.map(site => site.site), sites))]),
      h('div', {class: 'wide-table', tabindex: 0, role: 'group', 'aria-label': 'Sites ranked by the error they add'}, h('table', {class: 'sites'},
          h('caption', {}, `${many ? `The first ${kSitesShown} of ${countText(sites.length)} sites, ranked` : 'Ranked'} by the error that a site adds, relative to the truth there. Leaving = entering + added, element by element; the sizes do not add.`),
          h('thead', {}, h('tr', {}, h('th', {scope: 'col', class: 'number'}, 'rank'), h('th', {scope: 'col'}, 'site'), h('th', {scope: 'col'}, 'what'),
              ...heads.map(t => h('th', {scope: 'col', class: 'number'}, t)), h('th', {scope: 'col'}, ''))),
          h('tbody', {}, shown.map(site => h('tr', {},
              number(String(site.rank)), h('th', {scope: 'row', style: 'font-weight:400'}, h('code', {}, site.site)),
              h('td', {class: 'quiet'}, `${site.path ?? site.kind}, ${site.format} ${site.shape.join(' × ')}`),
              number(relativeText(site.added.relative_l2)), number(relativeText(site.entering.relative_l2)), number(relativeText(site.leaving.relative_l2)),
              number(ulpText(site.leaving.max_ulp)), number(percentText(site.leaving.coherent)), number(relativeText(Math.abs(numberOf(site.leaving.gain)))),
              number(relativeText(site.uncertainty)), h('td', {class: 'fail'}, broken(site))))))),
      h('p', {class: 'note'}, 'In common: the share of the leaving error that all rows share; it adds up over blocks, the rest like a root. ' +
          'Gain: how far it is along the truth itself. Open truth: the radius of the certified truth, relative. ' +
          `Definition gap of the whole block: ${relativeText(trace.definition_gap)}.`));
}
