// The panel of a block's sites: what error enters, what each adds, what leaves; in order on the chart, ranked in the table.

const percentText = v => v == null ? '–' : (100 * v).toFixed(v < 0.0995 ? 1 : 0) + ' %';
const relativeText = v => {
  const n = numberOf(v);
  return !Number.isFinite(n) ? (v == null ? '–' : '∞') : n === 0 ? '0' : n.toExponential(2).replace('-', '−');
};

function drawTrace(canvas, sites) {
  const series = key => sites.map(site => { const v = numberOf(site[key].relative_l2); return v > 0 && Number.isFinite(v) ? v : null; });
  const all = ['entering', 'added', 'leaving'].flatMap(series).filter(v => v !== null);
  const low = 10 ** Math.floor(Math.log10(Math.min(...all, 1))), high = 10 ** Math.ceil(Math.log10(Math.max(...all, 1e-12)));
  const options = chartOptions({
    x: {grid: {display: false}, ticks: {autoSkip: false, maxRotation: 60, minRotation: 40, callback: i => sites[i].site}},
    y: {type: 'logarithmic', min: low, max: high, title: {text: 'error / truth, Euclidean'},
        ticks: {callback: v => /^1(e|0*$|\.?0*e)/.test(String(v)) || Math.log10(v) % 1 === 0 ? relativeText(v).replace('.00', '') : null}},
  }, {label: item => `${item.dataset.label} ${relativeText(item.parsed.y)}`});
  const line = (label, key, colour, dash) => ({type: 'line', label, data: series(key), borderColor: colour, backgroundColor: colour, borderWidth: 2,
                                               borderDash: dash, pointRadius: 2.5, spanGaps: true});
  return new Chart(canvas, {type: 'bar', options, data: {labels: sites.map((_, i) => i), datasets: [
    line('leaving', 'leaving', style('--ink'), []), line('entering', 'entering', style('--quiet'), [4, 3]),
    {label: 'added', data: series('added'), backgroundColor: style('--path'), barPercentage: 0.7, categoryPercentage: 0.9}]}});
}

function tracePanel(trace) {
  const sites = trace?.sites;
  if (!sites?.length) return null;
  const canvas = h('canvas', {role: 'img', 'aria-label': 'Relative error that enters, is added and leaves at each site of the block; the table below has the figures'});
  view.pending.push(() => { view.charts[2]?.destroy(); view.charts[2] = drawTrace(canvas, sites); });
  const number = text => h('td', {class: 'number'}, text);
  const heads = ['added', 'entering', 'leaving', 'largest, ulp', 'in common', 'gain', 'open truth'];
  const broken = site => [site.nan && `${countText(site.nan)} NaN`, site.infinite && `${countText(site.infinite)} Inf`,
                          site.clipped && `${countText(site.clipped)} clipped`, site.differing && `${countText(site.differing)} other bits`].filter(Boolean).join(', ');
  return panel('full', 'Site by site',
      h('p', {class: 'key'}, h('span', {}, h('span', {class: 'swatch path'}), 'bars: added here'), h('span', {}, 'line: leaving'), h('span', {}, 'dashed: entering')),
      h('div', {class: 'chart tall'}, canvas),
      h('div', {class: 'wide-table', tabindex: 0, role: 'group', 'aria-label': 'Sites ranked by the error they add'}, h('table', {class: 'sites'},
          h('caption', {}, 'Ranked by the error that a site adds, relative to the truth there. Leaving = entering + added, element by element; the sizes do not add.'),
          h('thead', {}, h('tr', {}, h('th', {scope: 'col', class: 'number'}, 'rank'), h('th', {scope: 'col'}, 'site'), h('th', {scope: 'col'}, 'what'),
              ...heads.map(t => h('th', {scope: 'col', class: 'number'}, t)), h('th', {scope: 'col'}, ''))),
          h('tbody', {}, [...sites].sort((a, b) => a.rank - b.rank).map(site => h('tr', {},
              number(String(site.rank)), h('th', {scope: 'row', style: 'font-weight:400'}, h('code', {}, site.site)),
              h('td', {class: 'quiet'}, `${site.path ?? site.kind}, ${site.format} ${site.shape.join(' × ')}`),
              number(relativeText(site.added.relative_l2)), number(relativeText(site.entering.relative_l2)), number(relativeText(site.leaving.relative_l2)),
              number(ulpText(site.leaving.max_ulp)), number(percentText(site.leaving.coherent)), number(relativeText(Math.abs(numberOf(site.leaving.gain)))),
              number(relativeText(site.uncertainty)), h('td', {class: 'fail'}, broken(site))))))),
      h('p', {class: 'note'}, 'In common: the share of the leaving error that all rows share; it adds up over blocks, the rest like a root. ' +
          'Gain: how far it is along the truth itself. Open truth: the radius of the certified truth, relative. ' +
          `Definition gap of the whole block: ${relativeText(trace.definition_gap)}.`));
}
