document.getElementById('save')?.addEventListener('click', () => {
  const cases = [...document.querySelectorAll('select[data-case]')].map(select => {
    const [setting, key, words] = JSON.parse(select.dataset.case);
    return {setting, key, words, proposed: select.dataset.proposed, category: select.value};
  });
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([JSON.stringify(cases, null, 1)], {type: 'application/json'}));
  link.download = 'categories.json';
  link.click();
});
