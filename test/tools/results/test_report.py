# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re

from rock_seg_ros.tools.results import report


def page(tmp_path):
    return (tmp_path / 'report.html').read_text()


def cells(text):
    return dict(re.findall(r'<tr><td>([^<]+)</td><td class="\w+">([^<]*)</td>', text))


def test_a_report_has_counts_rock_cover_sizes_images_and_settings(find_rocks, tmp_path):
    assert find_rocks('--report', tmp_path / 'report.html', '--mm-per-px', 0.5) == 0
    text = page(tmp_path)
    found = cells(text)
    assert (found['images'], found['rocks'], found['images without rocks']) == ('3', '4', '1')
    cover = 2 * (200 + 120) / (3 * 48 * 64)
    assert found['rock cover (share of the pixels)'] == f'{cover:.1%}'
    assert found['weights'] == 'light.safetensors'
    assert re.fullmatch(r'[0-9a-f]{64}', found['weights_sha256'])
    row = re.search(r'<td>by volume</td>(.*?)</tr>', text)[1]
    assert re.findall(r'>([\d.]+)<', row) == ['6.18', '7.979', '7.979']
    assert text.count('data:image/svg+xml') == 2
    assert text.count('data:image/jpeg') == 3
    assert 'a.png: 2 rocks, 10.4% of the image' in text


def test_a_report_is_self_contained(find_rocks, tmp_path):
    assert find_rocks('--report', tmp_path / 'report.html') == 0
    sources = re.findall(r'(?:src|href)="([^"]{0,20})', page(tmp_path))
    assert sources
    assert all(source.startswith('data:') for source in sources)


def test_without_a_scale_the_report_has_sizes_in_pixels_and_a_note(find_rocks, tmp_path):
    assert find_rocks('--report', tmp_path / 'report.html') == 0
    assert 'D50 (px)' in page(tmp_path)
    assert 'No scale is known' in page(tmp_path)


def test_a_report_without_rocks_has_no_distribution(find_rocks, tmp_path):
    assert find_rocks('--report', tmp_path / 'report.html', '--min-area', 5000) == 0
    assert 'Size distribution' not in page(tmp_path)
    assert cells(page(tmp_path))['rocks'] == '0'


def test_of_many_images_a_report_shows_some_with_a_note(find_rocks, tmp_path, monkeypatch):
    monkeypatch.setattr(report, 'MAX_IMAGES', 2)
    assert find_rocks('--report', tmp_path / 'report.html') == 0
    assert '2 of 3 images, evenly spread' in page(tmp_path)
    assert page(tmp_path).count('data:image/jpeg') == 2


def test_file_names_are_escaped_in_the_page(find_rocks, folder, tmp_path):
    (folder / 'a.png').rename(folder / '<b>&x.png')
    assert find_rocks('--report', tmp_path / 'report.html') == 0
    assert '&lt;b&gt;&amp;x.png' in page(tmp_path)


def test_rocks_of_one_size_have_characteristic_sizes():
    sizes = report.Sizes('mm', [5.0, 5.0], 0)
    assert report.characteristic_table(sizes)['area'] == ['5'] * 3
