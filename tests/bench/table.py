"""Results for people."""
WAYS = ('tunneld', 'tunneld direct', 'ssh -L', 'stunnel', 'tcp')
MIB = 1 << 20


def number(v):
	return '%.0f' % v if abs(v) >= 100 else '%.1f' % v if abs(v) >= 10 else '%.2f' % v


def cell(row):
	if not row:
		return '-'
	text = number(row['median'])
	if len(row['rounds']) > 1:
		text += ' (%s–%s)' % (number(row['min']), number(row['max']))
	return text + (' !%d' % row['failed'] if row['failed'] else '')


def share(row, key):
	return '%.2f' % row[key] if row and key in row else ''


def head(out, seconds):
	m = out['machine']
	print('%s, %d cores, %s, Linux %s, %s; load %.1f, idle %.0f %% before; about %.0f min' % (m['version'], m['cpus'], m['cpu'], m['kernel'],
		m['congestion_control'], m['load'][0], m['idle_before'] * 100, seconds / 60 + 0.5))
	if m['idle_before'] < 0.9:
		print('The machine is busy with other work: only ratios and CPU seconds are worth something.')
	print('median (least–most) of %d rounds; idle: of the machine; others: what others used of it; !n: n connections failed' % out['rounds'])


def case(name, got):
	rows = got.get('rows', [])
	print('\n%s (%.0f s)' % (name, got['seconds']))
	for key in ('failed', 'skipped'):
		if key in got:
			print('  %s: %s' % (key, got[key]))
	for key, text in got.get('notes', {}).items():
		print('  %s: %s' % (key, text))
	if not rows:
		return
	ways = [w for w in WAYS if any(r['way'] == w for r in rows)]
	by = {(r['measure'], r['way']): r for r in rows}
	measures = list(dict.fromkeys((r['measure'], r['unit']) for r in rows))
	print('  %-58s' % '' + ''.join('%24s' % w for w in ways) + '%8s%8s%7s%8s' % ('of ssh', 'of tcp', 'idle', 'others'))
	for measure, unit in measures:
		ours = by.get((measure, 'tunneld')) or by.get((measure, ways[0]))
		print('  %-58s' % ('%s, %s' % (measure, unit)) + ''.join('%24s' % cell(by.get((measure, w))) for w in ways)
			+ '%8s%8s%7s%8s' % (share(ours, 'of_ssh'), share(ours, 'of_tcp'), share(ours, 'idle'), share(ours, 'others')))
	for r in rows:
		if r['way'] == 'tunneld direct' and 'of_ssh' in r:
			print('  %-58s%24s' % ('tunneld direct of ssh: %s' % r['measure'], share(r, 'of_ssh')))
	if name.startswith('loopback'):
		processes(rows)


def processes(rows):
	"""What each process spent, and its peak of memory, where bytes were moved."""
	for r in rows:
		if 'cpu_per_gib' in r and r['way'] != 'tcp':
			print('  %-58s%s' % ('%s, %s: CPU s a GiB' % (r['way'], r['measure']),
				'  '.join('%s %.2f' % (n, v) for n, v in r['cpu_per_gib'].items())))
			print('  %-58s%s' % ('%s  peak MiB' % (' ' * (len(r['way']) + len(r['measure']) + 1)),
				'  '.join('%s %.1f' % (n, v / MIB) for n, v in r['peak'].items())))
